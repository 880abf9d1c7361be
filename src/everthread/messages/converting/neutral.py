"""Messages without a format: what a reader of one format returns and a writer of another gets."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from everthread.messages.codec import media_at

Json = dict[str, object]
_GUESSED = 2000
"""The characters of an address that are enough to guess its type."""


class Text(msgspec.Struct, frozen=True):
    """A text."""

    text: str


class Seal(msgspec.Struct, frozen=True):
    """The form of reasoning that only the service that made it can read again.

    Attributes:
        data: The sealed reasoning, or its signature.
        id: The ID that the service gave it.
    """

    service: Literal["openai", "anthropic"]
    data: str
    id: str = ""


class Thought(msgspec.Struct, frozen=True):
    """The model's reasoning, readable or sealed or both."""

    texts: tuple[str, ...] = ()
    seal: Seal | None = None


class Attachment(msgspec.Struct, frozen=True):
    """An image, a sound or a file.

    Attributes:
        address: A URL, or a ``data:`` URI.
        name: The name of a file, if it has one.
    """

    media_type: str
    address: str
    name: str = ""

    @property
    def is_inline(self) -> bool:
        """Whether its bytes are in the message."""
        return self.address.startswith("data:")

    @property
    def data(self) -> str:
        """The base64 of an inline attachment."""
        return self.address.partition(",")[2]

    @property
    def note(self) -> str:
        """A text that replaces it."""
        reason = "not included" if self.is_inline or not self.address else self.address
        return f"[{self.media_type or 'file'}: {reason}]"


class Call(msgspec.Struct, frozen=True):
    """A tool call.

    Attributes:
        arguments: JSON text; plain text if ``is_custom``.
        is_awaiting: It waits for an approval, so it may never be carried out.
    """

    id: str
    name: str
    arguments: str
    is_custom: bool = False
    is_awaiting: bool = False


class Result(msgspec.Struct, frozen=True):
    """A tool's result.

    Attributes:
        name: The name of the tool, if its call was read too.
    """

    id: str
    text: str = ""
    media: tuple[Attachment, ...] = ()
    is_error: bool = False
    name: str = ""


Part = Text | Thought | Attachment | Call | Result


class Entry(msgspec.Struct, frozen=True):
    """A message.

    Attributes:
        role: ``user``, ``assistant``, ``system``, ``developer``, or ``tool``, which has results and nothing else.
        at: The index of the message that it was read from.
        is_item: It is a part of an answer, as in OpenAI's responses: adjacent ones make up one message.
    """

    role: str
    parts: tuple[Part, ...]
    at: int
    author: str = ""
    id: str = ""
    metadata: Mapping[str, object] = {}
    is_item: bool = False


class Loss(msgspec.Struct, frozen=True, order=True):
    """A part of a message that the other format does not express, or expresses in another way. Has no content.

    Attributes:
        at: The index of the message.
        aspect: A key of `everthread.messages.converting.support.ASPECTS`.
    """

    at: int
    aspect: str


class Losses:
    """The losses of a conversion.

    Attributes:
        found: The losses so far.
    """

    def __init__(self) -> None:
        self.found: list[Loss] = []

    def note(self, at: int, aspect: str) -> None:
        """Add a loss."""
        self.found.append(Loss(at, aspect))


def attachment(address: str, media_type: str = "", name: str = "") -> Attachment:
    """Return an attachment, with a media type from its address or name if none is given."""
    found = media_at(address, media_type).media_type if address.startswith("data:") else media_type
    if not found or found.endswith("/*") or found == "application/octet-stream":
        names = (name, "" if address.startswith("data:") else address[:_GUESSED])
        found = next((kind for each in names if (kind := mimetypes.guess_type(each)[0])), found)
    found = found or "application/octet-stream"
    return Attachment(found, address, "" if name == file_name(found) else name)


def file_name(media_type: str) -> str:
    """Return the name of a file without one, which OpenAI requires."""
    return f"file{mimetypes.guess_extension(media_type) or ''}"


def with_joined_texts(parts: Iterable[Part], separator: str = "") -> tuple[Part, ...]:
    """Return parts with each run of texts as one, and without empty ones."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Text) and not part.text:
            continue
        if isinstance(part, Text) and isinstance(last, Text):
            joined[-1] = Text(f"{last.text}{separator}{part.text}")
        else:
            joined.append(part)
    return tuple(joined)


def joined_thoughts(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield parts with the contents of one sealed reasoning as one. Reasoning without a seal keeps its text only."""
    held: Thought | None = None
    for part in [*parts, None]:
        if isinstance(part, Thought) and held is not None and _is_one(held.seal, part.seal):
            held = Thought(held.texts + part.texts, held.seal if held.seal and held.seal.data else part.seal)
            continue
        if held is not None:
            yield held if held.seal is None or held.seal.data else Thought(held.texts)
        held = part if isinstance(part, Thought) else None
        if part is not None and held is None:
            yield part


def _is_one(seal: Seal | None, other: Seal | None) -> bool:
    return seal is not None and other is not None and bool(seal.id) and seal.id == other.id


def results_of(entry: Entry) -> list[Result]:
    """Return the results of an entry."""
    return [part for part in entry.parts if isinstance(part, Result)]


def calls_of(entry: Entry) -> list[Call]:
    """Return the calls of an entry."""
    return [part for part in entry.parts if isinstance(part, Call)]
