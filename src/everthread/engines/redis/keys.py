"""The keys of a thread in Redis: the list of its messages, and companion keys in the list's slot.

The list's key is ``{prefix}:{thread_id}``, as other programs write it. The companions' names contain it, so that a
cluster puts them on the same server, and so that no two keys of any threads are equal: companions begin with ``{``,
which no prefix may contain, and lists never do.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections import OrderedDict
from typing import Final

from everthread._escaping import escape
from everthread.engines.redis.scripts import packed
from everthread.errors import ConfigurationError
from everthread.model import ThreadKey

COMPANIONS: Final = (b"meta", b"facts", b"spans", b"calls", b"ids", b"ids2", b"docs", b"runs")
SLOTS: Final = 16384
_LIKE_A_TENANT: Final = re.compile(rb"[^@]+@[^:]*:")
_CACHE_SIZE: Final = 2000  # about 2 kB each
_FORBIDDEN: Final = re.compile(r"[@{}\x00-\x1f\x7f]")


class ThreadNames:
    """The keys of one thread.

    Attributes:
        names: The list, its companions and, unless keys are spread, the tenant's recency index, as scripts get them.
        packed: Their number and the keys, in the encoding of RESP.
        words: Number of packed arguments.
        slot: Their slot in a cluster; 0 without a cluster.
        index: The tenant's recency index.
        member: The thread ID in the index.
        owner: The thread's prefix and tenant. Key and owner together identify a thread.
    """

    __slots__ = ("index", "member", "names", "owner", "packed", "slot", "words")

    def __init__(self, prefix: str, key: ThreadKey, *, spread: bool = False) -> None:
        realm = realm_of(prefix, key.tenant)
        self.member = key.thread_id.encode()
        self.owner = realm.encode()
        list_key = self.owner + b":" + self.member
        self.index = index_of(realm)
        self.names = (list_key, *companions_of(list_key), *(() if spread else (self.index,)))
        self.packed = packed([b"%d" % len(self.names), *self.names])
        self.words = 1 + len(self.names)
        self.slot = slot_of(list_key) if spread else 0


class Names:
    """Makes and caches the keys of threads under one prefix.

    Args:
        prefix: The beginning of the keys.
        spread: The keys are on several servers by their slots, so a script on a thread cannot reach the index.
    """

    def __init__(self, prefix: str, *, spread: bool = False) -> None:
        self.prefix = check_prefix(prefix)
        self.spread = spread
        self._known: OrderedDict[ThreadKey, ThreadNames] = OrderedDict()

    def of(self, key: ThreadKey) -> ThreadNames:
        """Return the keys of a thread."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = ThreadNames(self.prefix, key, spread=self.spread)
            if len(self._known) > _CACHE_SIZE:
                self._known.popitem(last=False)
        return known

    def index(self, tenant: str) -> bytes:
        """Return the key of a tenant's recency index."""
        return index_of(realm_of(self.prefix, tenant))


def check_prefix(prefix: object) -> str:
    """Return the prefix if lists may begin with it.

    Raises:
        ConfigurationError: It is empty, or contains ``@``, ``{``, ``}`` or a control character: these separate the
            keys of tenants, and of threads and their companions.
    """
    if not isinstance(prefix, str) or not prefix or _FORBIDDEN.search(prefix):
        raise ConfigurationError("A Redis prefix must be text without @, {, } and control characters, and not empty.")
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("The Redis prefix contains a lone surrogate, which has no UTF-8 form.") from None
    return prefix


def realm_of(prefix: str, tenant: str) -> str:
    """Return the beginning of a tenant's lists; no two pairs of prefix and tenant have the same."""
    return f"{prefix}@{escape(tenant)}" if tenant else prefix


def index_of(realm: str) -> bytes:
    """Return the key of a tenant's recency index."""
    return f"{{{realm}}}:recent".encode()


def companions_of(list_key: bytes) -> list[bytes]:
    """Return the companions of a list, in its slot.

    ``{list}:meta`` if the whole key can be a hash tag. Otherwise ``{tag}:meta:list``, with the key's own tag. The tag
    is a number with the same slot if a brace prevents the key from being a tag, or if the key's tag begins like a
    tenant's list: the rights of that tenant's user must not reach other threads.
    """
    tag = tag_of(list_key)
    if tag == list_key and b"}" not in list_key:
        return [b"{%b}:%b" % (list_key, name) for name in COMPANIONS]
    if tag == list_key or _LIKE_A_TENANT.match(tag):
        tag = tag_in(slot_of(list_key))
    return [b"{%b}:%b:%b" % (tag, name, list_key) for name in COMPANIONS]


def list_of(meta_key: bytes) -> bytes | None:
    """Return the list of a meta key, or ``None`` for any other key."""
    inner = meta_key[1:-6] if meta_key.endswith(b"}:meta") else meta_key.partition(b"}:meta:")[2]
    if not inner:
        return None
    return inner if meta_key == companions_of(inner)[0] else None


def tag_of(key: bytes) -> bytes:
    """Return the part of a key that decides its slot.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
    """
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return key[start + 1 : end] if end > start + 1 else key


def slot_of(key: bytes) -> int:
    """Return the slot of a key in a cluster."""
    return crc_hqx(tag_of(key), 0) % SLOTS


_tags: dict[int, bytes] = {}
_tried = 0


def tag_in(slot: int) -> bytes:
    """Return a tag of digits in a slot; the same one for every call."""
    global _tried  # noqa: PLW0603 (the table grows as needed)
    while slot not in _tags:
        tag = b"%d" % _tried
        _tags.setdefault(crc_hqx(tag, 0) % SLOTS, tag)
        _tried += 1
    return _tags[slot]
