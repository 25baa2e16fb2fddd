"""What is read as equal to what, as docs/answers.md shows it, from the tests' table.

    python tools/answers_table.py --write docs/answers.md

Prints the tables; `--write` puts them between the marks of a document.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
START, END = "<!-- answers table -->", "<!-- end of answers table -->"


def table() -> str:
    """The tables in Markdown."""
    sys.path.insert(0, str(ROOT))
    from tests.rewards.answers_table import EQUAL, REFUSED, UNEQUAL

    lines = ["| what | one value, in any of these |", "|---|---|"]
    lines += [f"| {name} | {' '.join(map(_code, row))} |" for name, row in EQUAL]
    lines += ["", "Not equal, either way round:", "", "| why | |", "|---|---|"]
    pairs: dict[str, list[str]] = {}
    for why, one, other in UNEQUAL:
        pairs.setdefault(why, []).append(f"{_code(one)} and {_code(other)}")
    lines += [f"| {why} | {', '.join(each)} |" for why, each in pairs.items()]
    lines += ["", "No gold and no answer:", "", "| why | |", "|---|---|"]
    lines += [f"| {why} | {_code(text)} |" for why, text in REFUSED]
    return "\n".join(lines)


def put(document: str) -> str:
    """The document with the tables between its marks."""
    head, _, rest = document.partition(START)
    tail = rest.partition(END)[2]
    return f"{head}{START}\n{table()}\n{END}{tail}"


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    space = " " if fence == "``" else ""
    return f"{fence}{space}{''.join(_shown(text))}{space}{fence}"


def _shown(text: str) -> Iterator[str]:
    for character in text:
        yield r"\|" if character == "|" else character


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.write is None:
        print(table())
        return
    args.write.write_text(put(args.write.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
