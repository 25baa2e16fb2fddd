r"""What an answer usually wears: full-width forms, foreign stops, markdown, `$`, `\text{}`.

Golds and answers are undressed by the same function, so that either may be dressed.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from mmrl.rewards.braces import closing_brace

_MAX_LAYERS = 8
_LONGEST = 4_096  # of what is looked at for wrappings; nothing longer is one answer

_MARKS = {
    0x3000: " ", 0x00A0: " ", 0x202F: " ", 0x2009: " ", 0x2002: " ", 0x2003: " ", 0x3002: ".",
    0xFF61: ".", 0x3001: ",", 0xFF64: ",", 0x3010: "[", 0x3011: "]", 0x2018: "'", 0x2019: "'",
    0x201C: '"', 0x201D: '"', 0xFFE5: "\u00a5", 0xFFE1: "\u00a3", 0xFFE0: "\u00a2",
    0x200B: None, 0x2060: None, 0xFEFF: None,
}  # fmt: skip
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_TABLE = {**_WIDE, **_MARKS}

_PAIRS = (
    ("**", "**"), ("__", "__"), ("```", "```"), ("`", "`"), ("$$", "$$"), ("$", "$"),
    (r"\(", r"\)"), (r"\[", r"\]"), ('"', '"'), ("*", "*"), ("_", "_"), ("\u300c", "\u300d"),
    ("\u300e", "\u300f"),
)  # fmt: skip
_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|mbox|rm|bf|operatorname"
    r"|boldsymbol|bm|emph|underline|boxed|fbox)\s*\{"
)
# Compatibility forms that are another way to draw the same characters; powers, fractions and
# circled numbers are not: x with a raised 2 is no x2.
_SAME_LETTERS = """
<wide> <narrow> <compat> <small> <noBreak> <vertical> <font> <initial> <medial> <final> <isolated>
<square>
"""


def fold(text: str) -> str:
    """Write full-width forms, CJK stops, curly quotes and odd spaces as their plain characters."""
    return text if text.isascii() else text.translate(_TABLE)


def undress(text: str) -> str:
    r"""Take off what encloses the whole text, and one final stop.

    Markdown's stars and ticks, double quotes, dollars, `\(\)`, `\text{}` and its relatives, and
    braces around one thing. Text that is enclosed in part only is left as it is.
    """
    text = fold(text).strip()
    if len(text) > _LONGEST:
        return text
    for _ in range(_MAX_LAYERS):
        bare = _without_stop(_without_layer(text)).strip()
        if bare == text:
            break
        text = bare
    return text


def same_letters(text: str) -> str:
    """Compose the text (NFC) and write ligatures, widths and drawn variants as plain letters."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", "".join(map(_plain, unicodedata.normalize("NFC", text))))


def _without_layer(text: str) -> str:
    for opening, closing in _PAIRS:
        if len(text) <= len(opening) + len(closing):
            continue
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            plain = inner.replace("\\$", "")  # a dollar that is money
            if opening not in plain and closing not in plain:
                return inner
    match = _COMMAND.match(text)
    if match and closing_brace(text, match.end()) == len(text) - 1:
        return text[match.end() : -1]
    if text.startswith("{") and closing_brace(text, 1) == len(text) - 1 and "," not in text:
        return text[1:-1]
    return text


def _without_stop(text: str) -> str:
    return text[:-1] if text.endswith((".", ";", ",")) and not text.endswith("..") else text


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character in "\u2018\u2019\u201b":
        return "'"
    if character in "\u201c\u201d\u201f":
        return '"'
    kind, _, codes = unicodedata.decomposition(character).partition(" ")
    if not kind or kind not in _SAME_LETTERS:
        return character
    return "".join(_plain(chr(int(code, 16))) for code in codes.split())
