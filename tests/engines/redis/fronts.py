"""Proxies between a client and a Redis server: one loses answers, one speaks TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Front:
    """Forwards bytes in both directions; ``loses`` decides whether the answer to a client's data is lost.

    The server has carried out the command by then: the connection is cut when its answer comes back.
    """

    server_port: int
    loses: Callable[[bytes], bool] = lambda _: False
    port: int = 0
    connections: int = 0
    lost: int = 0
    _served: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = field(default_factory=dict)

    async def close(self) -> None:
        for writer in self._served.values():
            writer.transport.abort()
        await asyncio.gather(*filter(None, self._served))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._served[asyncio.current_task()] = writer
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self.server_port)
        losing = asyncio.Event()

        async def forward() -> None:
            while data := await reader.read(1 << 16):
                if not losing.is_set() and self.loses(data):
                    losing.set()
                downstream.write(data)

        async def back() -> None:
            while data := await upstream.read(1 << 16):
                if losing.is_set():
                    self.lost += 1
                    return
                writer.write(data)

        ways = [asyncio.create_task(forward()), asyncio.create_task(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            downstream.transport.abort()


@contextlib.asynccontextmanager
async def front(
    server_port: int, loses: Callable[[bytes], bool] = lambda _: False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Front]:
    """A `Front` on a free loopback port."""
    made = Front(server_port, loses)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
        await made.close()


def once(command: bytes) -> Callable[[bytes], bool]:
    """Loses the answer to the first data that holds ``command``."""
    seen: list[bytes] = []

    def loses(data: bytes) -> bool:
        if seen or command not in data:
            return False
        seen.append(data)
        return True

    return loses


def make_certificate(folder: Path, host: str = "127.0.0.1", *, hours: int = 1) -> tuple[Path, Path]:
    """A certificate for an address or a name that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"everthread test {host}")])
    now = datetime.datetime.now(datetime.UTC)
    is_name = host[0].isalpha()
    address = x509.DNSName(host) if is_name else x509.IPAddress(ipaddress.ip_address(host))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(certificate.public_bytes(encoding))
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, private, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"
