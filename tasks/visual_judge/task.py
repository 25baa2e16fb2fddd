"""Pairwise visual judging: a fixed sentence says which of two is better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mmrl import task as contract
from mmrl.records import media_refs, read_records
from mmrl.rewards.graded import (
    ACCURACY_AND_FORMAT,
    first_region_or_text,
    grade,
    tagged_solution,
)
from mmrl.rewards.grammar import TagAnswer, Think
from mmrl.rewards.labels import Label, grade_label
from mmrl.rewards.pairwise import SWAPPED, Order, in_order
from mmrl.rewards.parsed import Parsed
from mmrl.task import RewardPart, mean_by
from mmrl.types import Answer, Part, Record, Sample, Score, Text

TIE = "Both are equally good"
_SOLUTION = re.compile(r"(Image|Video|Answer) ([12]) is better", re.IGNORECASE)
_VOTES: Mapping[str, int | None] = {"leftvote": 0, "rightvote": 1, "tievote": None,
                                    "bothbad_vote": None}  # fmt: skip
_REASONING, _HALLUCINATION = ("mathverse", "mmmu"), ("rlaif", "rlhf", "hallucination", "povid")


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared (`Image`, `Video`, `Answer`), which is better (None: a tie), how asked."""

    noun: str
    better: int | None
    question: str
    media: tuple[Part, ...]
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.noun != "Answer" and len(self.media) != 2:
            raise ValueError(f"{len(self.media)} media where two are compared")


@dataclass(frozen=True)
class Task(contract.Task):
    """Equality of the verdict sentence, case and a final full stop aside.

    `code` is the published reward: the first region, or the whole completion, letter by letter.
    `ties` lets the model declare one; without, records that are ties are refused.
    """

    think: Think = "required"
    order: Order = "shuffled"
    ties: bool = False
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "visual_judge"
    summary: ClassVar[str] = "which of two images, videos or answers is better"
    parts: ClassVar[Mapping[str, RewardPart]] = ACCURACY_AND_FORMAT
    metric: ClassVar[str] = "macro_accuracy"

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read pairs in the order of presentation that `order` asks for."""
        return in_order(read_records(path), self.order)

    def sample(self, record: Record) -> Sample:
        """Ask a record of UnifiedReward, VL-RewardBench or GenAI-Bench by its columns."""
        pair = _read_pair(record)
        if pair.better is None and not self.ties:
            raise ValueError("the pair is a tie; set ties to ask such records")
        swapped = bool(record.fields.get(SWAPPED, False))
        labels = tuple(f"{pair.noun} {n} is better" for n in (1, 2)) + ((TIE,) * self.ties)
        name = TIE if pair.better is None else labels[pair.better ^ swapped]
        grammar = TagAnswer(self.think)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(
                *_shown(pair, swapped),
                Text(f"\n{grammar.instruction()} The answer is one of: {'; '.join(labels)}."),
            ),
            gold=Label(name, labels),
            target=grammar.write(name),
            meta={
                "group": _group(record),
                "tie": pair.better is None,
                "pair": str(record.fields.get("pair", record.id)),
                "swapped": swapped,
            },
        )

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade the one verdict."""
        region = TagAnswer(self.think).parse(answer)
        verdict: Parsed[str] = region.answer
        right = False
        if region.answer.value is not None:
            verdict, right = grade_label(region.answer.value, gold)
        as_coded = first_region_or_text(answer.text) == gold.name
        return grade(region, verdict, as_coded if self.variant == "code" else right, right)

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Mean over the groups of their accuracies."""
        groups = mean_by("group", values, metas)
        return sum(groups.values()) / len(groups)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """Accuracy per group, over all records, and without ties."""
        numbers = mean_by("group", values, metas)
        numbers["overall"] = sum(values) / len(values)
        decided = [value for value, meta in zip(values, metas, strict=True) if not meta["tie"]]
        if decided:
            numbers["without_ties"] = sum(decided) / len(decided)
        return numbers


def _read_pair(record: Record) -> Pair:
    fields = record.fields
    if "human_ranking" in fields:
        return _vl_reward_bench(record)
    if "vote_type" in fields:
        videos = [
            *media_refs(record, "video", "video_left"),
            *media_refs(record, "video", "video_right"),
        ]
        if fields["vote_type"] not in _VOTES:
            raise ValueError(f"vote {fields['vote_type']!r:.40} is none of {list(_VOTES)}")
        question = f"Which video fits the prompt better?\nPrompt: {fields['prompt']}"
        return Pair("Video", _VOTES[fields["vote_type"]], question, tuple(videos))
    solution = tagged_solution(fields["solution"])
    match = _SOLUTION.fullmatch(solution.removesuffix("."))
    if match is None:
        raise ValueError(f"verdict {solution!r:.60} is not '... 1 is better' or '... 2 is better'")
    media = media_refs(record, "image", "images", "image")
    texts = tuple(str(fields[c]) for c in ("answer_1", "answer_2") if c in fields)
    if match[1].lower() == "answer" and len(texts) != 2:
        raise ValueError("answers are compared by their columns answer_1 and answer_2")
    return Pair(
        match[1].capitalize(), int(match[2]) - 1, str(fields["problem"]), tuple(media), texts
    )


def _vl_reward_bench(record: Record) -> Pair:
    """Two responses about one picture; the better one has the lower rank."""
    fields = record.fields
    ranks, texts = list(fields["human_ranking"]), tuple(map(str, fields["response"]))
    if sorted(ranks) != [0, 1] or len(texts) != 2:
        raise ValueError(f"ranks {ranks} of {len(texts)} responses")
    media = tuple(media_refs(record, "image", "image"))
    return Pair("Answer", ranks.index(0), str(fields["query"]), media, texts)


def _shown(pair: Pair, swapped: bool) -> tuple[Part, ...]:
    """The question, then the two sides named in the order shown."""
    compared = pair.media if pair.noun != "Answer" else ()
    context = () if compared else pair.media
    parts: list[Part] = [*context, Text(pair.question)]
    for n, index in enumerate((1, 0) if swapped else (0, 1), 1):
        if compared:
            parts += [Text(f"\n{pair.noun} {n}: "), compared[index]]
        else:
            parts.append(Text(f"\n{pair.noun} {n}: {pair.texts[index]}"))
    return tuple(parts)


def _group(record: Record) -> str:
    """The record's `group`, or VL-RewardBench's groups by the beginning of its id."""
    if record.fields.get("group"):
        return str(record.fields["group"])
    if "human_ranking" not in record.fields:
        return "all"
    name = record.id.lower()
    if name.startswith(_REASONING):
        return "reasoning"
    return "hallucination" if name.startswith(_HALLUCINATION) else "general"
