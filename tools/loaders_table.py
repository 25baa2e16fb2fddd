"""The table of docs/data.md: what every layout and container was seen to hold.

    python tools/loaders_table.py            # writes it

Layouts and contents are those of the tests (tests/data/loaders.py), which train on each.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "data.md"
_TABLE = re.compile(r"^\| layout \| image .*?\n(?=\n|\Z)", re.MULTILINE | re.DOTALL)


def table() -> str:
    """The table in Markdown."""
    sys.path.insert(0, str(ROOT))
    from tests.data.loaders import CONTENTS, LOADERS

    heads = ["several turns" if key == "turns" else key for key in CONTENTS]
    lines = [f"| layout | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, loader in LOADERS.items():
        cells = ["-" if key in loader.lacks else "yes" for key in CONTENTS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def put(page: str) -> str:
    """The page with the table of today."""
    return _TABLE.sub(lambda _: table(), page)


if __name__ == "__main__":
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(table(), end="")
