"""Find the primary that sentinels name, and notice when they choose another one.

The old primary may be alive: it was frozen, or its operator moved the role away. It then accepts writes, and discards
them when it becomes a replica, ten seconds later. So connections to it end as soon as a sentinel reports the choice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from everthread.engines.redis.client.calls import Address
from everthread.engines.redis.client.dialing import Dialer
from everthread.engines.redis.client.topology import Topology
from everthread.errors import ConfigurationError

EVENTS: Final = (
    "+selected-slave",
    "+promoted-slave",
    "+switch-master",
    "-failover-abort-no-good-slave",
    "-failover-abort-slave-timeout",
)
"""https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#pubsub-messages"""

LONGEST_CHOICE: Final = 10.0
"""Seconds after which the sentinels are asked again whether their choice is still open."""

_PAUSE: Final = 1.0
_GRACE: Final = 0.5


class _ChoosingError(ConnectionError):
    """No server accepts writes that will be kept."""

    def __init__(self) -> None:
        super().__init__("the sentinels are choosing another primary")


class _Answer(NamedTuple):
    """A sentinel's answer: the primary, whether it leads a failover, and the primary before that."""

    named: Address
    leads: bool
    before: Address


class SentinelTopology(Topology):
    """The primary that sentinels name.

    Args:
        sentinels: Their addresses; one that answers is enough.
        name: The primary's name in their configuration.
        dialer: Connects to them.
    """

    def __init__(self, sentinels: Sequence[Address], name: str, dialer: Dialer) -> None:
        self._sentinels = sentinels
        self._name = name
        self._dialer = dialer
        self._primary: Address | None = None
        self._chosen_by = 0.0
        self._events = 0

    def of(self, slot: int) -> Address | None:
        return self._primary

    def lost(self, address: Address) -> None:
        if address == self._primary:
            self._primary = None

    async def find(self) -> None:
        if asyncio.get_running_loop().time() < self._chosen_by:
            raise _ChoosingError
        if self._primary is None:
            self._primary = await self._named()

    async def watch(self, changed: Callable[[], None]) -> None:
        """Listen to all sentinels, forever; call ``changed`` when the primary changes, or is about to."""
        await asyncio.gather(*(self._watch(sentinel, changed) for sentinel in self._sentinels))

    async def _watch(self, sentinel: Address, changed: Callable[[], None]) -> None:
        while True:
            try:
                async with aclosing(self._dialer.listen(sentinel, *EVENTS)) as events:
                    async for channel, text in events:
                        if not channel:
                            await self._compare(changed)
                        elif self._note(channel.decode(), text.decode().split(" ")):
                            changed()
            except Exception:  # noqa: S110 (the loop tries again; writes need no sentinel)
                pass
            await asyncio.sleep(_PAUSE)
            # The sentinel may not allow this user to subscribe.
            await self._compare(changed)

    def _note(self, channel: str, words: Sequence[str]) -> bool:
        """Note a sentinel's event and return whether it changes the primary."""
        self._events += 1
        if channel == "+switch-master" and words[0] == self._name:
            return self._move_to((words[3], int(words[4])))
        if channel == "+promoted-slave" and words[5:6] == [self._name]:
            return self._move_to((words[2], int(words[3])))
        if channel.startswith("-failover-abort") and words[1] == self._name:
            self._chosen_by = 0.0
        if channel == "+selected-slave" and words[5:6] == [self._name]:
            # It becomes the primary a tenth of a second later. The old one loses what it accepts from then on.
            self._primary, self._chosen_by = None, asyncio.get_running_loop().time() + LONGEST_CHOICE
            return True
        return False

    def _move_to(self, primary: Address) -> bool:
        is_another = primary != self._primary
        self._primary, self._chosen_by = primary, 0.0
        return is_another

    async def _compare(self, changed: Callable[[], None]) -> None:
        """Ask the sentinels, in case they published a change before this subscribed."""
        events = self._events
        try:
            named: Address | None = await self._named()
        except _ChoosingError:
            named = None
        except Exception:
            return
        # An event that came while they were asked is newer than their answers.
        if self._primary is not None and named != self._primary and events == self._events:
            self._primary = named
            changed()

    async def _named(self) -> Address:
        """Return the primary that most sentinels name; one that was away may still name an older one.

        Raises:
            ConnectionError: None answers, or one of them is making another server the primary.
        """
        pending = {asyncio.ensure_future(self._ask(sentinel)) for sentinel in self._sentinels}
        answers: list[_Answer | None] = []
        trouble: Exception | None = None
        try:
            while pending:
                # The one that leads a failover may answer last. The wait is short, because a sentinel may be down.
                grace = _GRACE if _agreed(answers, len(self._sentinels)) else None
                done, pending = await asyncio.wait(pending, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for each in done:
                    error = each.exception()
                    if isinstance(error, ConfigurationError):
                        raise error
                    if isinstance(error, Exception):
                        trouble = error
                    else:
                        answers.append(each.result())
        finally:
            for each in pending:
                each.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        known = [answer for answer in answers if answer is not None]
        if known:
            return _chosen(known)
        raise trouble or ConfigurationError(f"No sentinel knows a primary with the name {self._name!r}.")

    async def _ask(self, sentinel: Address) -> _Answer | None:
        reply = await self._dialer.ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        if reply is None:
            return None
        named = _address(reply[0], reply[1])
        try:
            flat = await self._dialer.ask(sentinel, "SENTINEL", "MASTER", self._name)
        except ConfigurationError:
            # The sentinel may not allow this user that command.
            return _Answer(named, leads=False, before=named)
        known = dict(zip(flat[::2], flat[1::2], strict=True))
        return _Answer(named, b"failover_in_progress" in known[b"flags"], _address(known[b"ip"], known[b"port"]))


def _address(host: bytes, port: bytes) -> Address:
    return host.decode(), int(port)


def _agreed(answers: Sequence[_Answer | None], count: int) -> bool:
    votes = Counter(answer.named for answer in answers if answer is not None)
    return any(2 * number > count for number in votes.values())


def _chosen(answers: Sequence[_Answer]) -> Address:
    leading = [answer for answer in answers if answer.leads]
    if promoted := next((answer for answer in leading if answer.named != answer.before), None):
        return promoted.named
    if leading:
        raise _ChoosingError
    return Counter(answer.named for answer in answers).most_common(1)[0][0]
