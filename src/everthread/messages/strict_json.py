"""Check which Python values JSON returns unchanged. No I/O.

msgspec also accepts other values: bytes, dates, decimals, sets, enumerations and objects become text, arrays and
objects, and names that are numbers become text. Decoding would return another value, so these are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, cast

from everthread.errors import InvalidMessageError

_SCALARS = frozenset({str, int, float, bool, type(None)})
_FINITE = _SCALARS - {float}
_LONGEST_PATH = 200
# Any other name may be content.
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


def check_json(value: object, path: str = "") -> None:
    """Raise an error for a value that JSON does not return unchanged. A tuple counts as an array.

    Does not look for ``NaN``, infinities and lone surrogates, which encoding finds.

    Args:
        value: The value to encode.
        path: The place of the value in a larger one, for the error.

    Raises:
        InvalidMessageError: JSON cannot represent a part of the value. The message gives its path and type.
    """
    try:
        if not is_json(value):
            raise InvalidMessageError(find_unfit(value, path) or "The value has no JSON form.")
    except RecursionError:
        raise InvalidMessageError("The value is nested too deeply, or holds itself.") from None


def as_strict(value: object) -> object:
    """Return a decoded value with U+FFFD for lone surrogates, and null for ``NaN`` and the infinities."""
    if isinstance(value, str):
        # Two escaped surrogates that form a pair become one character.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {as_strict(name): as_strict(item) for name, item in cast(dict[str, object], value).items()}
    if isinstance(value, list):
        return [as_strict(item) for item in cast(list[object], value)]
    return value


def holds_non_finite(value: object) -> bool:
    """Return whether a value of JSON's own types holds ``NaN`` or an infinity."""
    kind = type(value)
    if kind is dict:
        return any(
            type(item) not in _FINITE and holds_non_finite(item) for item in cast(dict[str, object], value).values()
        )
    if isinstance(value, dict):
        return holds_non_finite(dict(cast(dict[str, object], value)))
    if isinstance(value, (list, tuple)):
        return any(type(item) not in _FINITE and holds_non_finite(item) for item in cast(list[object], value))
    return isinstance(value, float) and not math.isfinite(value)


def find_unfit(value: object, path: str = "") -> str:
    """Return a sentence on the first part of a value that JSON cannot represent; an empty text if there is none.

    Names that are not plain field names appear as ``*``: they may be content.
    """
    try:
        path, reason = next(_unfit(value, path), ("", ""))
    except RecursionError:
        return "The value is nested too deeply, or holds itself."
    return f"{path.removeprefix('.')[:_LONGEST_PATH] or 'The value'} {reason}." if reason else ""


def is_json(value: Any) -> bool:
    """Return whether JSON returns a value unchanged. Ignores ``NaN``, infinities and lone surrogates."""
    # Called for each value that is stored: the usual types come first, and there is no call of `cast`.
    kind: object = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is dict:
        for name, item in value.items():
            if type(name) is not str and not _is_equal_scalar(name, str):
                return False
            if type(item) not in _SCALARS and not is_json(item):
                return False
        return True
    if kind is list or kind is tuple:
        return all(not (type(item) not in _SCALARS and not is_json(item)) for item in value)
    if kind in _SCALARS:
        return True
    if isinstance(value, dict):
        return is_json(dict(cast(dict[object, object], value)))
    if isinstance(value, list):
        return is_json(list(cast(list[object], value)))
    return _is_equal_scalar(value, (str, int))


def _is_equal_scalar(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Return whether a value is a member of an enumeration that equals the text or number in its JSON."""
    if not isinstance(value, Enum) or not isinstance(value, kinds):
        return False
    written: object = value.value
    return type(written) in _SCALARS and written == value


def _unfit(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each part that JSON cannot represent, and the reason."""
    if isinstance(value, dict):
        for name, item in cast(dict[object, object], value).items():
            if type(name) is not str and not _is_equal_scalar(name, str):
                yield path, f"has a name of type {type(name).__name__}, and JSON has text only"
            elif _has_lone_surrogate(name):
                yield path, "has a name with a lone surrogate, which has no UTF-8 form"
            else:
                shown = name if isinstance(name, str) and _FIELD.fullmatch(name) else "*"
                yield from _unfit(item, f"{path}.{shown}")
    elif isinstance(value, list) or type(value) is tuple:
        for index, item in enumerate(cast(list[object], value)):
            yield from _unfit(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, "is NaN or an infinity, which JSON lacks: use null or text"
    elif not is_json(value):
        yield path, f"is of type {type(value).__name__}, which JSON lacks: store text or numbers instead"
    elif _has_lone_surrogate(value):
        yield path, "holds a lone surrogate, which has no UTF-8 form"


def _has_lone_surrogate(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False
