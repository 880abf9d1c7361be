"""Where a thread lies in Redis: the list of its messages, and companion keys in the list's slot.

The list's key is ``{prefix}:{thread_id}``, as other programs write it. Companions are named after it so
that a cluster puts them on the same server, and so that no two keys of any threads are ever equal:
companions begin with ``{``, which no prefix may hold, and lists never do.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections import OrderedDict
from typing import Final

from everthread.engines.redis._wire import packed
from everthread.errors import ConfigurationError
from everthread.keys import escape
from everthread.model import ThreadKey

COMPANIONS: Final = (b"meta", b"facts", b"spans", b"calls", b"ids", b"ids2", b"docs")
SLOTS: Final = 16384
_MOST_REMEMBERED = 2000  # about 2 kB each
_FORBIDDEN = re.compile(r"[@{}\x00-\x1f\x7f]")


class ThreadNames:
    """The keys of one thread, in the order that the scripts know them by.

    Attributes:
        names: The list, its companions, and the tenant's recency index where a script may change that too.
        packed: How many they are, and they, in the wire's encoding.
        words: Into how many words they are packed.
        index: The tenant's recency index.
        slot: Where a cluster keeps the thread; 0 where there is none.
        member: The thread id as it stands in the index.
        owner: Which prefix and tenant the thread is of. Key and owner together name one thread only.
    """

    __slots__ = ("index", "member", "names", "owner", "packed", "slot", "words")

    def __init__(self, prefix: str, key: ThreadKey, *, spread: bool = False) -> None:
        realm = realm_of(prefix, key.tenant)
        self.member = key.thread_id.encode()
        self.owner = realm.encode()
        list_key = self.owner + b":" + self.member
        self.index = index_of(realm)
        self.names = (list_key, *companions_of(list_key)) + (() if spread else (self.index,))
        self.packed = packed([b"%d" % len(self.names), *self.names])
        self.words = 1 + len(self.names)
        self.slot = slot_of(list_key) if spread else 0


class Names:
    """Makes and remembers the keys of threads under one prefix.

    Args:
        prefix: What the keys begin with.
        spread: Whether keys lie on several servers by their slots, so that a script cannot reach the index.
    """

    def __init__(self, prefix: str, *, spread: bool = False) -> None:
        self.prefix = check_prefix(prefix)
        self.spread = spread
        self._known: OrderedDict[ThreadKey, ThreadNames] = OrderedDict()

    def of(self, key: ThreadKey) -> ThreadNames:
        """The keys of a thread."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = ThreadNames(self.prefix, key, spread=self.spread)
            if len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        return known

    def index(self, tenant: str) -> bytes:
        """The key of a tenant's recency index."""
        return index_of(realm_of(self.prefix, tenant))


def check_prefix(prefix: object) -> str:
    """Returns the prefix if lists may begin with it.

    Raises:
        ConfigurationError: It is empty, or holds ``@``, ``{``, ``}`` or a control character: these keep the
            keys of tenants, and of threads and their companions, apart.
    """
    if not isinstance(prefix, str) or not prefix or _FORBIDDEN.search(prefix):
        raise ConfigurationError("A Redis prefix is text without @, { and } and control characters, and not empty.")
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("The Redis prefix holds a lone surrogate, which has no UTF-8 form.") from None
    return prefix


def realm_of(prefix: str, tenant: str) -> str:
    """What the lists of a tenant begin with; differs for every two tenants and prefixes."""
    return f"{prefix}@{escape(tenant)}" if tenant else prefix


def index_of(realm: str) -> bytes:
    """The key of the recency index of a tenant."""
    return f"{{{realm}}}:recent".encode()


def companions_of(list_key: bytes) -> list[bytes]:
    """The keys beside a list, in its slot.

    ``{list}:meta`` where the whole key can stand between the braces. Otherwise ``{tag}:meta:list`` with the tag
    that the server takes from the key, or, where a brace bars the key from being a tag, another of the same slot.
    """
    tag = tag_of(list_key)
    if tag == list_key and b"}" not in list_key:
        return [b"{%b}:%b" % (list_key, name) for name in COMPANIONS]
    if tag == list_key:
        tag = tag_in(slot_of(list_key))
    return [b"{%b}:%b:%b" % (tag, name, list_key) for name in COMPANIONS]


def list_of(meta_key: bytes) -> bytes | None:
    """The list that a key is the meta of; ``None`` for any other key."""
    inner = meta_key[1:-6] if meta_key.endswith(b"}:meta") else meta_key.partition(b"}:meta:")[2]
    return inner if inner and companions_of(inner)[0] == meta_key else None


def tag_of(key: bytes) -> bytes:
    """The part of a key that decides its slot.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
    """
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return key[start + 1 : end] if end > start + 1 else key


def slot_of(key: bytes) -> int:
    """Where a cluster keeps a key."""
    return crc_hqx(tag_of(key), 0) % SLOTS


_tags: dict[int, bytes] = {}
_tried = 0


def tag_in(slot: int) -> bytes:
    """A tag of digits that lies in a slot; always the same one for a slot."""
    global _tried  # noqa: PLW0603 (a table that fills up as far as it is needed)
    while slot not in _tags:
        tag = b"%d" % _tried
        _tags.setdefault(crc_hqx(tag, 0) % SLOTS, tag)
        _tried += 1
    return _tags[slot]
