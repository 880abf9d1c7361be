"""Characters that show nothing, or that terminals and models obey without showing them."""

from __future__ import annotations

import json
import re

_REPLACEMENT = 0xFFFD
_INVISIBLE = (0x061C, *range(0x200E, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x2070), *range(0xFFF9, 0xFFFC))
"""Marks that change the direction of writing, and line ends that only some programs see."""
CONTROLS: dict[int, int] = (
    {code: 0x2400 + code for code in range(0x20)}
    | {0x7F: 0x2421}
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), *_INVISIBLE], _REPLACEMENT)
)
"""For `str.translate`: every control character but tab and newline, and its visible replacement."""
del CONTROLS[0x09], CONTROLS[0x0A]
_IN_JSON = re.compile(
    "[" + "".join(re.escape(chr(code)) for code in CONTROLS if code >= 0x7F) + "\U000e0000-\U000e007f]"
)


def escape_controls(line: str) -> str:
    """Return JSON text of the same value in which these characters, and invisible tag characters, are escaped."""
    return _IN_JSON.sub(lambda found: json.dumps(found[0])[1:-1], line)
