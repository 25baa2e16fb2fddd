"""Tool calls: ToolRL's graded reward, BFCL's AST accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.rewards.call_match import accept_all, graded_match
from mmrl.rewards.calls import Call, parse_call_lines, parse_calls
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.parsed import Parsed, ok
from mmrl.task import RewardPart, mean_by
from mmrl.tasks.tool_calls.records import Gold, read_bfcl, read_question
from mmrl.types import Answer, Record, Sample, Score, Text


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """ToolRL's template: a thought, then `<tool_call>` with one JSON call a line, a `<response>`,
    or both in this order; nothing else.
    """

    think: Think = "required"

    def instruction(self) -> str:
        return (
            "First reason between <think> </think> tags. To call tools, write one JSON object a "
            'line, {"name": ..., "parameters": {...}}, between <tool_call> </tool_call> tags. To '
            "answer the user, write between <response> </response> tags. Do one of the two, or "
            "both in this order."
        )

    def parse(self, answer: Answer) -> tuple[Parsed[tuple[Call, ...]], bool, bool]:
        """Read the calls, none where only a response is given; whether there is a response;
        whether nothing else is in the completion.
        """
        text, replied = _cut_response(answer.text)
        head = replace(answer, text=text)
        region = TagAnswer(self.think, "tool_call", max_region_characters=16_384).parse(head)
        if region.answer.status != "missing" or "<tool_call>" in text.rpartition("</think>")[2]:
            calls = region.answer.then(parse_call_lines)
            return calls, replied, region.well_formed and calls.value is not None
        spoken = TagAnswer(self.think, "response", max_region_characters=16_384).parse(answer)
        return spoken.answer.then(lambda _: ok(())), replied, spoken.well_formed

    def write(self, calls: Sequence[Call], response: str, thought: str = "") -> str:
        """Write a well-formed completion with these calls and this response, either may be none."""
        lines = [json.dumps({"name": c.name, "parameters": dict(c.arguments)}) for c in calls]
        regions = [f"<tool_call>\n{chr(10).join(lines)}\n</tool_call>"] if calls else []
        regions += [f"<response>{response}</response>"] if response else []
        return f"<think>{thought}</think>\n" + "\n".join(regions)


@dataclass(frozen=True)
class Task(contract.Task):
    """Reads ToolRL rows and BFCL records (with `ground_truth`, or its files side by side).

    `answer` python asks for BFCL's `[f(a=1)]` between `<answer>` tags. `values` text takes 1 for
    "1" in ToolRL's golds. `no_tool` zero is ToolRL as coded: rows whose gold calls no tool give 0
    whatever the model does.
    """

    answer: Literal["tags", "python"] = "tags"
    values: Literal["typed", "text"] = "typed"
    no_tool: Literal["scored", "zero"] = "scored"

    name: ClassVar[str] = "tool_calls"
    summary: ClassVar[str] = "call the right tools with the right arguments, or none"
    parts: ClassVar[dict[str, RewardPart]] = {
        "correctness": RewardPart(-3.0, 3.0),
        "format": RewardPart(0.0, 1.0),
    }
    metric: ClassVar[str] = "ast_accuracy"

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read a BFCL file, which has its answers in `possible_answer/` beside it."""
        return read_bfcl(path) if path.name.startswith("BFCL_") else None

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold is the list of expected calls."""
        question = read_question(record, self.values == "text")
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(f"{question.user}\n\n{self._instruction()}"),),
            gold=question.gold,
            system=question.system or None,
            target=self._target(question.gold),
            meta={"category": question.category},
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Graded match in [-3, 3] as the reward, all calls right as the metric."""
        expected = gold.calls
        calls, replied, formed = self._parse(answer)
        if calls.value is None:
            correctness, right = -3.0, False
        else:
            correctness = 6 * graded_match(expected, calls.value) - 3
            right = accept_all(expected, calls.value)
        if not expected and self.no_tool == "zero":
            correctness = 0.0
        if self.answer == "tags" and gold.has_response is not None:
            formed = formed and replied == gold.has_response
        parts = {"correctness": correctness, "format": float(formed)}
        return Score(parts, float(right), calls.status, calls.reason)

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Unweighted mean over the categories."""
        categories = mean_by("category", values, metas)
        return sum(categories.values()) / len(categories)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Accuracy of each category."""
        return mean_by("category", values, metas)

    def _instruction(self) -> str:
        if self.answer == "tags":
            return ToolAnswer().instruction()
        return (
            f"{TagAnswer().instruction()} The answer is a list of calls with arguments by name, "
            "[f(a=1), g(b='x')], or [] if no function fits."
        )

    def _parse(self, answer: Answer) -> tuple[Parsed[tuple[Call, ...]], bool, bool]:
        if self.answer == "tags":
            return ToolAnswer().parse(answer)
        region = TagAnswer(max_region_characters=16_384).parse(answer)
        calls = region.answer.then(parse_calls)
        return calls, False, region.well_formed and calls.value is not None

    def _target(self, gold: Gold) -> str:
        calls = [expected.example() for expected in gold.calls]
        if self.answer == "python":
            written = ", ".join(
                f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})"
                for c in calls
            )
            if parse_calls(f"[{written}]").value != tuple(calls):
                raise ValueError("the gold's names are no Python names: use answer 'tags'")
            return TagAnswer().write(f"[{written}]")
        response = "Done." if gold.has_response or not calls else ""
        return ToolAnswer().write(calls, response)


def _cut_response(text: str) -> tuple[str, bool]:
    """Take a closing `<response>` region off that follows calls."""
    body = text.rstrip()
    start = body.rfind("<response>")
    if not body.endswith("</response>") or start < 0:
        return text, False
    return body[:start], True
