"""Which transformations lead from one view to the other: a set of calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import interleave, media_refs
from mmrl.rewards.graded import grade, tagged_solution
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart
from mmrl.tasks.trance.reward import Change, find_changes, parse_changes, set_score
from mmrl.types import Answer, Record, Sample, Score, Text

HINT = "The answer is a list of calls such as change_color(0, 'red'), change_size(2, 'small')."


@dataclass(frozen=True)
class Task(contract.Task):
    """Graded set match of (function, object, value).

    `matching` is Reason-RFT's choice: `graded` pays partial matches, `full` only whole ones,
    `penalty` fines partial ones. `variant` code ignores what is no call, as published.
    """

    think: Think = "required"
    matching: Literal["graded", "full", "penalty"] = "graded"
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "trance"
    summary: ClassVar[str] = "transformations between two views, graded set match"
    metric: ClassVar[str] = "accuracy"
    keeps: ClassVar[contract.Keeps] = "noise"

    @property
    def parts(self) -> Mapping[str, RewardPart]:  # type: ignore[override]
        """The fines of `penalty` reach -0.5."""
        low = -0.5 if self.matching == "penalty" else 0.0
        return {"accuracy": RewardPart(low, 1.0), "format": RewardPart(0.0, 1.0)}

    def sample(self, record: Record) -> Sample:
        """Ask a record: two views as `image` or `images`, `problem`, `solution`."""
        fields = record.fields
        solution = tagged_solution(fields["solution"])
        gold = parse_changes(solution)
        if gold.value is None:
            raise ValueError(f"the gold is no list of calls: {gold.reason}")
        views = media_refs(record, "image", "images", "image")
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *interleave(str(fields["problem"]), "<image>", views),
                Text(f"\n{grammar.instruction()} {HINT}"),
            ),
            gold=tuple(dict.fromkeys(gold.value)),
            target=grammar.write(solution),
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Match the calls of the one answer region; the metric forgives repetition."""
        region = TagAnswer(self.think).parse(answer)
        read = parse_changes if self.variant == "strict" else find_changes
        parsed: Parsed[tuple[Change, ...]] = region.answer.then(read)
        calls = parsed.value or ()
        golds = [Change(*change) for change in gold]
        reward = set_score(calls, golds, self.matching)
        return grade(region, parsed, reward, set_score(tuple(dict.fromkeys(calls)), golds))
