"""Start a task: writes tasks/NAME with a working exact-match task to edit.

python tools/new_task.py colour
"""

from __future__ import annotations

import argparse
import json
import keyword
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_TITLE = 50  # it stands in lines of at most 100 characters

INIT = '''"""{title}."""

from mmrl.tasks.{name}.task import Task

__all__ = ["Task"]
'''

TASK = '''"""{title}: one short answer, right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.records import media_source
from mmrl.rewards.grammar import TagAnswer
from mmrl.task import RewardPart
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

GRAMMAR = TagAnswer(think="optional")


@dataclass(frozen=True)
class Task(contract.Task):
    """Exact match of the answer, letter case aside."""

    name: ClassVar[str] = "{name}"
    summary: ClassVar[str] = "{title}"
    parts: ClassVar[dict[str, RewardPart]] = {{"accuracy": RewardPart(0.0, 1.0)}}
    metric: ClassVar[str] = "accuracy"

    def sample(self, record: Record) -> Sample:
        """Ask a record with `question`, `answer` and optionally `image`."""
        gold = str(record.fields["answer"])
        question = Text(f"{{record.fields['question']}} {{GRAMMAR.instruction()}}")
        image = record.fields.get("image")
        media = (MediaRef("image", media_source(record, image)),) if image else ()
        return Sample(record.id, self.name, (*media, question), gold, target=GRAMMAR.write(gold))

    def score(self, gold: Any, answer: Answer) -> Score:
        """1 for the right answer, else 0."""
        parsed = GRAMMAR.parse(answer).answer
        right = float((parsed.value or "").strip().lower() == gold.lower())
        parts = {{"accuracy": right}}
        return Score(parts, metric=right, status=parsed.status, reason=parsed.reason)
'''

README = """# {name}

{title}.

- **Records**: `question`, `answer`, optionally `image` (a path beside the records).
- **Source and licence**: say where the data comes from.
- **Traps**: say what a careless reward would pay for.
"""


def mistake_in(name: str, title: str, folder: Path) -> str:
    """What is wrong with a name or title, in one line; empty if nothing is."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return f"{name}: a task's name is lower-case letters, digits and _, such as colour_naming"
    if folder.exists():
        return f"{name}: there is such a task already: {folder}"
    if not title.isprintable() or not 0 < len(title) <= MAX_TITLE or set(title) & set('"\\{}'):
        return f"--title: one line of at most {MAX_TITLE} characters, without quotes or braces"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--title", default=None, help="one line for the list of tasks")
    args = parser.parse_args()
    folder = ROOT / "tasks" / args.name
    title = args.title or args.name.replace("_", " ")
    if mistake := mistake_in(args.name, title, folder):
        print(mistake, file=sys.stderr)
        return 2
    folder.mkdir()
    for file, text in (("__init__.py", INIT), ("task.py", TASK), ("README.md", README)):
        (folder / file).write_text(text.format(name=args.name, title=title), encoding="utf-8")
    rows = [
        {"id": f"{args.name}-{i}", "question": f"How much is {i} plus {i}?", "answer": str(2 * i)}
        for i in range(1, 6)
    ]
    fixture = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "fixture.jsonl").write_text(fixture, encoding="utf-8")
    print(f"{folder}: edit task.py, then `mmrl tasks {args.name}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
