"""What the offline model understands: facts that people state about themselves, and questions about them.

Pure text, no framework. English sentences of a kind that travellers type; it quotes whatever it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

MAX_CHARACTERS = 4000
"""Of each message; whoever pastes a book does not state facts in it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b"
)
_WEEKDAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_PART = r"(?:(?:early|mid|late|the end of|the beginning of)[ -])?"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = re.compile(
    rf"\b(?:{_PART}(?:{_DAY}(?: ?(?:-|–|to|and) ?{_DAY})? (?:of )?)?{_MONTH}(?: {_DAY}\b)?(?:,? \d{{4}})?"
    rf"|\d{{4}}-\d\d-\d\d"
    rf"|(?i:tomorrow|(?:next|this) (?:week(?:end)?|month|year|spring|summer|autumn|fall|winter|{_WEEKDAY}))"
    rf"|{_WEEKDAY}|(?<=in )(?i:spring|summer|autumn|winter)\b)"
    rf"|\bfor (?:\d+|an?|one|two|three|four|five|six|seven|ten) (?:nights?|days?|weeks?|months?)\b"
)
_NAME = r"([^\W\d_][\w'’-]*(?: [A-Z][\w'’-]+){0,2})"
_PROPER = r"[A-ZÀ-Ž][\w'’-]*(?:(?: (?:de|del|da|do|la|of))* [A-ZÀ-Ž][\w'’-]*)*"
_NOT_NAMES = _words(
    "American Australian Austrian Belgian Brazilian British Canadian Chinese Czech Danish Dutch English European "
    "Finnish French German Greek Indian Irish Italian Japanese Korean Mexican Norwegian Polish Portuguese Russian "
    "Scottish Spanish Swedish Swiss Turkish Ukrainian Vegan Vegetarian Muslim Jewish Catholic"
)
_COMMON = _words(
    "the and are was were will would can could should did doe have had has you your mine our for with from that thi "
    "there what where when who which why how much many tell remind know about want like please need get"
)
_NOT_PLACES = re.compile(rf"(?:{_MONTH}|{_WEEKDAY}|I\b)")

_NAMES = (
    re.compile(rf"\b(?i:my name(?: is|['’]s)|call me|i go by)\s+{_NAME}"),
    re.compile(r"\b(?:[Ii] am|[Ii]['’]?m|[Tt]his is)\s+([A-Z][\w'’-]+(?: [A-Z][\w'’-]+)?)\b(?!['’]s)"),
)
_LIKES = re.compile(
    r"\b(?:I|we)(?:['’]m| am| are)? (?:also |really |absolutely |just )*"
    r"(?:like|love|enjoy|prefer|adore|fond of|into)\s+(.+)",
    re.IGNORECASE,
)
_FAVOURITE = re.compile(r"\bmy favou?rite ([\w ]+?) (?:is|are) (.+)", re.IGNORECASE)
_DISLIKES = re.compile(
    r"\b(?:I|we) (?:really )?(?:(?:do not|don['’]?t) (?:like|eat|drink|enjoy)|hate|dislike|avoid|can(?:no|['’])t stand"
    r"|am allergic to)\s+(.+)|\bI['’]m allergic to (.+)",
    re.IGNORECASE,
)
_PLACES = (
    re.compile(
        rf"\b(?i:go|going|travel|travell?ing|fly|flying|drive|trip|holiday|vacation|move|moving|week|weekend|days?)\b"
        rf"[^,]{{0,30}}?\b(?:to|in) ((?:the )?{_PROPER})"
    ),
    re.compile(rf"\b(?i:visit|visiting|see|explore) ((?:the )?{_PROPER})"),
    re.compile(r"\b(?:go|going|travel|travell?ing|fly|flying) to ((?!the\b|a\b|my\b|see\b|bed\b|work\b)[a-z]\w{2,})\b"),
)
_HOME = re.compile(rf"\bI (?:live in|am from|come from)|\bI['’]m from|\bfrom ({_PROPER})")
_HOME_NAME = re.compile(rf"(?:live in|from) ({_PROPER})")
_END = re.compile(r",? (?:but|and (?:I|my|we)\b|because|so that|, (?:I|my|we)\b).*", re.IGNORECASE | re.DOTALL)
_PARTS = re.compile(r"(?<=[.!?])\s+|,? and (?=(?:what|where|when|who|which)\b)")
_CLAUSES = re.compile(r"(?<=[.!?;])\s+|\n+|(?<=[.!?;])$")


class Memory:
    """What the user's messages say, in the order in which they said it. Without messages it knows nothing."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [text[:MAX_CHARACTERS] for text in texts]
        self.statements: list[str] = []
        self.names: list[str] = []
        self.likes: list[str] = []
        self.dislikes: list[str] = []
        self.places: list[str] = []
        self.homes: list[str] = []
        self.dates: list[str] = []
        for text in self.texts:
            for clause in filter(None, map(str.strip, _CLAUSES.split(text))):
                if not is_question(clause):
                    self._learn(clause)

    def about(self, question: str) -> list[str]:
        """The statements that share the most words with a question; none if they share no telling one."""
        asked = _telling_words(question)
        shared = [(len(asked & _telling_words(statement)), statement) for statement in self.statements]
        most = max((count for count, _ in shared), default=0)
        return [statement for count, statement in shared if most and count == most]

    @property
    def name(self) -> str | None:
        """The name that was given last."""
        return self.names[-1] if self.names else None

    def facts(self) -> list[str]:
        """All facts as parts of a sentence to the user."""
        return [
            *([f"your name is {self.name}"] if self.name else []),
            *([f"you live in or come from {_listed(self.homes)}"] if self.homes else []),
            *([f"you want to go to {_listed(self.places)}"] if self.places else []),
            *([f"the time is {_listed(self.dates)}"] if self.dates else []),
            *([f"you like {_listed(self.likes)}"] if self.likes else []),
            *([f"you would rather avoid {_listed(self.dislikes)}"] if self.dislikes else []),
        ]

    def _learn(self, clause: str) -> None:
        if len(clause.split()) > 1:
            _add(self.statements, clause)
        for pattern in _NAMES:
            names = (name for name in pattern.findall(clause) if name.split()[0] not in _NOT_NAMES)
            _add(self.names, *(name[0].upper() + name[1:] for name in names))
        disliked = _DISLIKES.search(clause)
        if disliked:
            _add(self.dislikes, _object(disliked[1] or disliked[2]))
        _add(self.likes, *(_object(found[1]) for found in _LIKES.finditer(clause)))
        _add(self.likes, *(f"{_object(found[2])} ({found[1]})" for found in _FAVOURITE.finditer(clause)))
        if _HOME.search(clause):
            _add(self.homes, *_HOME_NAME.findall(clause))
        for pattern in _PLACES:
            places = [place for place in pattern.findall(clause) if not _NOT_PLACES.match(place)]
            _add(self.places, *(place for place in places if place not in self.homes))
        _add(self.dates, *(found[0].strip() for found in _DATE.finditer(clause)))


def is_question(clause: str) -> bool:
    """Whether a sentence asks rather than states."""
    return clause.rstrip().endswith("?") or bool(
        re.match(
            r"(?:what|where|when|who|whom|which|why|how|do you|can you|could you|tell me|remind me)\b", clause, re.I
        )
    )


def answer(texts: Sequence[str]) -> str:
    """The offline model's reply to the last of the user's messages, from what all of them say."""
    if not texts:
        return "Say something, and I will remember it for as long as this thread is kept."
    asked = texts[-1][:MAX_CHARACTERS].lower().replace("’", "'")
    memory = Memory(texts)
    replies = [reply for part in _PARTS.split(asked) for reply in _replies(part, memory)]
    if replies:
        return " ".join(dict.fromkeys(replies))
    if is_question(asked):
        return _unknown(memory)
    if re.match(r"(?:hi|hello|hey|good (?:morning|evening|day))\b[^a-z]*$", asked):
        return f"Hello{_comma(memory.name)}! Where would you like to travel?"
    return _noted(memory, texts)


def _replies(question: str, memory: Memory) -> Iterator[str]:
    for pattern, reply in _QUESTIONS:
        if re.search(pattern, question):
            yield reply(memory)
            return


def _noted(memory: Memory, texts: Sequence[str]) -> str:
    before, now = Memory(texts[:-1]), Memory(texts[-1:])
    greeting = f"Nice to meet you, {now.name}. " if now.name and now.name != before.name else ""
    new = [fact for fact in now.facts() if not fact.startswith("your name")]
    if new:
        return f"{greeting}Noted{_comma(None if greeting else memory.name)}: {'; '.join(new)}."
    return f"{greeting}{'I will remember that.' if greeting or now.statements else 'All right.'}"


def _unknown(memory: Memory) -> str:
    related, facts = memory.about(memory.texts[-1]), memory.facts()
    if related:
        return _quoted(related)
    known = f"What I know from this thread: {'; '.join(facts)}." if facts else "You have told me nothing yet."
    return f"That is beyond me: I am a small offline model and only know what this thread says. {known}"


def _name(memory: Memory) -> str:
    return f"Your name is {memory.name}." if memory.name else "You have not told me your name."


def _destination(memory: Memory) -> str:
    if not memory.places:
        return "You have not told me where you want to go."
    when = f" ({_listed(memory.dates)})" if memory.dates else ""
    return f"You want to go to {_listed(memory.places)}{when}."


def _home(memory: Memory) -> str:
    return f"You told me: {_listed(memory.homes)}." if memory.homes else "You have not told me where you are from."


def _liked(memory: Memory) -> str:
    return f"You like {_listed(memory.likes)}." if memory.likes else "You have not told me what you like."


def _disliked(memory: Memory) -> str:
    if not memory.dislikes:
        return "You have not told me what you do not like."
    return f"You would rather avoid {_listed(memory.dislikes)}."


def _when(memory: Memory) -> str:
    return f"You said: {_listed(memory.dates)}." if memory.dates else "You have not told me when."


def _told(memory: Memory) -> str:
    if not memory.statements:
        return "You have not told me anything yet."
    return _quoted(memory.statements[-20:])


def _first(memory: Memory) -> str:
    return f"Your first message was: “{memory.texts[0]}”"


def _last(memory: Memory) -> str:
    return f"Before this you wrote: “{memory.texts[-2]}”" if len(memory.texts) > 1 else "This is your first message."


def _plan(memory: Memory) -> str:
    if not memory.places:
        return f"Where would you like to go{_comma(memory.name)}?"
    rest = [fact for fact in memory.facts() if not fact.startswith(("your name", "you want to go"))]
    minding = f", minding that {'; '.join(rest)}" if rest else ""
    return (
        f"For {_listed(memory.places)}{_comma(memory.name)}: a walk through the old town on the first day, the sights "
        f"you care about most on the second, and time to spare on the last{minding}. A real model would know more."
    )


def _who(memory: Memory) -> str:
    return (
        "I am a small offline model that needs no key and no network. I answer only from the messages of this thread"
        f"{'' if memory.texts[:-1] else ', of which this is the first'}."
    )


_QUESTIONS = (
    (r"\bwhat(?:'s| is| was)? (?:is )?my name|\bmy name\?|\bwho am i\b|what am i called|know my name", _name),
    (r"\bwho are you|what are you\b|\bare you (?:an? )?(?:real|offline|ai|model|bot)", _who),
    (r"where (?:do i live|am i from|do i come from)", _home),
    (
        r"\b(?:what|which)\b.*\b(?:i|we) (?:(?:do not|don't) (?:like|eat|drink)|hate|dislike|avoid)|\ballerg.*\?",
        _disliked,
    ),
    (r"what (?:don't|do not) i (?:like|eat|drink)|what (?:do|should) i (?:hate|dislike|avoid)", _disliked),
    (r"\b(?:what|which)\b.*\b(?:i|we) (?:really )?(?:like|love|enjoy|prefer)\b|my (?:favou?rite|likes).*\?", _liked),
    (r"\bwhere\b.*\b(?:i|we)\b|my destination|\bwhich (?:city|place|country|town)", _destination),
    (r"^when\b|\b(?:what|which) (?:date|day|month|week)|how long (?:am|will|do|is)|when (?:do|am|are|is|will) ", _when),
    (r"what (?:did|have|had) i (?:just )?(?:tell|told|say|said)|what do you (?:know|remember)|remember me\b", _told),
    (r"do you remember|\bsummar|\brecap\b|what have we (?:talked|spoken)", _told),
    (r"my first (?:question|message)|what did i (?:ask|say) first", _first),
    (r"my (?:last|previous) (?:question|message)|what did i (?:just )?ask", _last),
    (r"\b(?:plan|itinerary)\b.*\b(?:trip|day|days|weekend|week|it|me)\b|\b(?:suggest|recommend)|itinerary", _plan),
)


def _quoted(statements: Sequence[str]) -> str:
    return "You told me: " + " ".join(f"“{statement}”" for statement in statements)


def _telling_words(text: str) -> set[str]:
    # Without a plural's "s", so that "kid" is found by "kids".
    words = re.findall(r"[^\W\d_]{3,}", text.lower())
    return {word.removesuffix("s") for word in words} - _COMMON


def _object(text: str) -> str:
    return _END.sub("", text).strip(" .!;,")


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _comma(name: str | None) -> str:
    return f", {name}" if name else ""


def _add(known: list[str], *new: str) -> None:
    known.extend(item for item in _stripped(new) if item and item not in known)


def _stripped(items: Iterable[str]) -> Iterable[str]:
    return (item.strip() for item in items)
