"""Start a task: writes tasks/NAME with a working exact-match task to edit.

python tools/new_task.py colour
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

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
        return Sample(
            record.id, self.name, (*media, question), gold, target=GRAMMAR.write(gold)
        )

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--title", default=None, help="one line for the list of tasks")
    args = parser.parse_args()
    folder = ROOT / "tasks" / args.name
    if not args.name.isidentifier() or folder.exists():
        print(f"{args.name}: not a new, valid module name", file=sys.stderr)
        return 2
    title = args.title or args.name.replace("_", " ")
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
