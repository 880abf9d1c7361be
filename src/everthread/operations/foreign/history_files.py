"""Agent Framework's file history: a file for each session, of JSON Lines or MessagePack.

Its provider takes no lock that other processes see. So a file is repaired only if its program is stopped, or has not
written for an hour. The repaired file replaces the former one in one step, if that did not change since it was read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from everthread.errors import ConfigurationError, ConflictError, InvalidMessageError
from everthread.messages.codec import encode
from everthread.operations._targets import Change, Target
from everthread.operations.foreign.store import MAX_THREAD_BYTES, ForeignStore
from everthread.transfer.files import opened, replacing
from everthread.transfer.foreign._turns import files_of
from everthread.transfer.foreign.agent_framework_files import PACKED, SUFFIXES
from everthread.transfer.model import Skipped

_OPAQUE = b'{"type":"opaque"}'
_ANYWHERE = 1_000_000
_HEADER = 4
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")


class HistoryFiles(ForeignStore):
    """The sessions of a folder, or of one file."""

    kind = "agent-framework-files"

    def __init__(self, place: Path, is_running: Callable[[int | None], bool]) -> None:
        self._place = place
        self._is_running = is_running
        self._files: list[Path] = []

    async def open(self) -> None:
        self._files = files_of(self._place, SUFFIXES, "history")

    async def targets(self) -> AsyncIterator[Target | Skipped]:
        for path in self._files:
            try:
                yield self._read(path)
            except (ConfigurationError, OSError) as error:
                yield Skipped(path.name, str(error))

    async def target(self, name: str) -> Target | None:
        path = next((path for path in self._files if path.name == name), None)
        return None if path is None else self._read(path)

    def _read(self, path: Path) -> FileTarget:
        with opened(path) as file:
            found = os.fstat(file.fileno())
            if found.st_size > MAX_THREAD_BYTES:
                raise ConfigurationError(f"it has more than {MAX_THREAD_BYTES:,} bytes")
            data = file.read(MAX_THREAD_BYTES + 1)
        target = FileTarget(path, found, data)
        target.is_running = self._is_running(found.st_mtime_ns // 1_000_000)
        if target.is_running:
            target.refusal = (
                "it was written within the last hour: stop its program, which takes no lock, and give --stopped"
            )
        return target


class FileTarget(Target):
    """A session's file."""

    def __init__(self, path: Path, found: os.stat_result, data: bytes) -> None:
        self._path = path
        self._found = found
        self._is_packed = path.suffix == PACKED
        self.name = path.name
        # Blank lines are no records. They stay in front of the record that follows.
        self._pieces, self._rest = _packed(data) if self._is_packed else _lines(data)
        self.payloads = [self._payload(piece) for piece in self._pieces]

    def _payload(self, piece: bytes) -> bytes:
        if not self._is_packed:
            return piece.strip()
        if len(piece) < _HEADER or int.from_bytes(piece[:_HEADER], "big") != len(piece) - _HEADER:
            return piece
        try:
            value: object = msgspec.msgpack.decode(piece[_HEADER:])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return piece
        try:
            return encode(value)
        except (InvalidMessageError, RecursionError):
            # It can be read, and has no JSON form.
            return _OPAQUE

    def room(self, before: int | None, after: int | None) -> int:
        return _ANYWHERE

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.refusal:
            raise ConflictError(self.refusal, 0)
        pieces: list[bytes] = []
        done = 0
        for change in changes:
            pieces += self._pieces[done : change.at]
            done = change.at + (change.old is not None)
            if change.new is not None:
                pieces.append(self._piece(change.new))
        pieces += self._pieces[done:]
        with replacing(self._path) as file:
            for number, piece in enumerate(pieces):
                is_last = number == len(pieces) - 1
                file.write(piece if self._is_packed or is_last or piece.endswith(b"\n") else piece + b"\n")
            file.write(self._rest)
            os.fchmod(file.fileno(), stat.S_IMODE(self._found.st_mode))
            file.flush()
            self._check_unchanged()

    def _piece(self, payload: bytes) -> bytes:
        if not self._is_packed:
            return payload + b"\n"
        if not _is_json(payload):
            # An undo restores a damaged record unchanged.
            return payload
        packed = msgspec.msgpack.encode(msgspec.json.decode(payload))
        return len(packed).to_bytes(_HEADER, "big") + packed

    def _check_unchanged(self) -> None:
        try:
            now = self._path.stat()
        except OSError:
            now = None
        if now is None or _identity(now) != _identity(self._found):
            raise ConflictError(f"Another program changed {self.name}: try again.", 0)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _is_json(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the records of JSON Lines, each with the blank lines before it, and the blank lines at the end."""
    pieces: list[bytes] = []
    blank = b""
    for line in _LINE.findall(data):
        if line.strip():
            pieces.append(blank + line)
            blank = b""
        else:
            blank += line
    return pieces, blank


def _packed(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the records of MessagePack, each with its length. One that was cut off is the last."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + _HEADER], "big")
        pieces.append(data[at : at + _HEADER + length])
        at += _HEADER + length
    return pieces, b""
