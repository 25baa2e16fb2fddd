"""Braces that belong together, in text that may be anything."""

from __future__ import annotations

import re

# Escaped characters are skipped as pairs; the alternatives start differently, so no backtracking.
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def closing_brace(text: str, start: int) -> int:
    """Where the brace closes that was opened just before `start`; -1 if it does not."""
    depth = 1
    for match in _BRACES.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if not depth:
                return match.start()
    return -1
