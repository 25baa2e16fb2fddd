"""Whether a question hangs on how its picture lies: on sides, an order, or what is to be read."""

from __future__ import annotations

import re

_SIDES = (
    r"left\w*|right\w*|top\w*|bottom\w*|up|down|upper\w*|lower\w*|uppermost|above|below|beneath"
    r"|under|underneath|over|upward\w*|downward\w*|upside|upright|north\w*|south\w*|east\w*|west\w*"
    r"|clockwise|counter-?clockwise|anti-?clockwise|horizontal\w*|vertical\w*|sides?|corners?"
    r"|directions?|facing|faces|towards?|rows?|columns?|higher|highest|lowest"
    r"|tall|taller|tallest|wide|wider|widest|height|width"
)
_ORDER = r"first|second|third|fourth|fifth|last|next|nth|\d+(?:st|nd|rd|th)"
_READ = (
    r"reads?|reading|letters?|words?|texts?|write|writes|written|writing|says?|said|spell\w*|signs?"
    r"|labels?|labell?ed|titles?|captions?|numerals?|numbered|numbers|digits?|clocks?|o'clock|logos?"
)
_HANGS = re.compile(rf"\b(?:{_SIDES}|{_ORDER}|{_READ})\b|\bnumber (?:on|is|in)\b", re.IGNORECASE)


def hangs_on_sides(text: str) -> bool:
    """True if a turned or mirrored picture may have another answer to the question `text`.

    By words, and in doubt true: "right" of "right angle" counts, and so does any script but Latin,
    whose words are not known here.

    Example:
        >>> hangs_on_sides("How many dogs are left of the tree?"), hangs_on_sides("How many dogs?")
        (True, False)
    """
    strange = any(c.isalpha() and ord(c) > 0x24F for c in text)
    return strange or _HANGS.search(text) is not None
