"""Your records and your reward functions, in the forms TRL's and verl's trainers take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

from mmrl import task as contract
from mmrl.corpus.cells import dig
from mmrl.corpus.fields import ANSWERS, Fields, fields_of
from mmrl.corpus.media_columns import kind_of, shows_media
from mmrl.errors import ConfigError
from mmrl.records import media_source
from mmrl.rewards.call_forms import (
    Call,
    Judged,
    TrainerState,
    form_of,
    grades_alone,
    judge,
    names_needed,
    names_taken,
)
from mmrl.rewards.custom import RewardFunction, load_function
from mmrl.rewards.pictures import messages_with_pictures, opened
from mmrl.task import Moment, RewardPart, Scope
from mmrl.types import Answer, MediaRef, Record, Sample, Score, Text

METRICS = ("mean", "std", "group_std")  # beside which the parts' means stand in `metrics.jsonl`


@dataclass(frozen=True)
class Task(contract.Task):
    """`function` is `package.module:function` or `file.py:function`, or several of them.

    Records are of any layout of docs/data.md. A function receives their further columns, pictures
    as PIL images. One function's part and metric are called `reward`; several are parts by their
    names, and the metric is the first one's. `per` says how many answers a call has: one `answer`,
    the `group` of a prompt, or the whole `batch` of a step; default: what its form can take, one
    for verl's, a group for others. No function (`[]`): `judges` alone give the reward.
    """

    function: str | tuple[str, ...]
    per: Scope | None = None

    name: ClassVar[str] = "custom"
    summary: ClassVar[str] = "your records, scored by your own reward functions"

    def __post_init__(self) -> None:
        for function in self.functions:
            load_function(function)
        names = self._part_names
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two reward functions are called '{name}': rename one")
            if name in METRICS:
                raise ConfigError(f"reward function '{name}': '{name}' is a name of a metric")

    @property
    def functions(self) -> tuple[str, ...]:
        return (self.function,) if isinstance(self.function, str) else self.function

    @property
    def parts(self) -> Mapping[str, RewardPart]:  # type: ignore[override]
        several = len(self.functions) > 1
        return {name: RewardPart(-inf, inf, optional=several) for name in self._part_names}

    @property
    def metric(self) -> str:  # type: ignore[override]
        return self._part_names[0] if self.functions else "reward"

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        if self.per is not None:
            return self.per
        return "answer" if all(map(grades_alone, self._loaded)) else "group"

    def sample(self, record: Record) -> Sample:
        """Ask a record; the gold is what the functions will be called with."""
        fields = fields_of(record)
        asked = frozenset[str]().union(*(names_taken(f)[0] for f in self._loaded))
        # A file that a function reads need not be shown; what the model sees, functions see too.
        fields.taken |= asked.difference(*fields.media_columns.values())
        talk = fields.messages_column
        columns, media = {}, {}
        for name, value in fields.items():
            if shows_media(name, value) and (held := _media(record, name, value)) is not None:
                media[name] = held
            elif name in asked or name not in ("prompt", talk):
                columns[name] = value
        # A gold that stands elsewhere goes by the name that the function knows.
        if (gold := fields.answer) is not None:
            columns |= {n: gold for n in asked if n in ANSWERS and n not in columns}
        if any(form_of(function) != "trl" for function in self._loaded):
            columns |= _verl_columns(fields, self.name)
        return Sample(
            id=record.id,
            task=self.name,
            parts=(Text(str(fields["prompt"])),),
            gold={"prompt": fields.prompt, "columns": columns, "media": media, "shown": []},
        )

    def _refuse_lacking(self, columns: Set[str]) -> None:
        """Raise ValueError where a function needs a column that a record does not have."""
        for function, called in zip(self.functions, self._loaded, strict=True):
            name = function.rpartition(":")[2]
            foreign = form_of(called) != "trl"  # which gets no columns
            for lacking in sorted(names_needed(called) - (set() if foreign else columns)):
                if foreign:
                    raise ValueError(
                        f"{name}() needs '{lacking}', which verl's form does not give: read it "
                        "from extra_info"
                    )
                known = ", ".join(sorted(columns)) or "none besides its prompt"
                raise ValueError(
                    f"no column '{lacking}', which {name}() needs; the record has: {known:.200}"
                )

    def ask(self, record: Record) -> Sample:
        """Ask a record; the gold also holds the pictures that the messages show, in order."""
        sample = super().ask(record)
        if sample.reference is None:  # one with a completion may be learnt without a reward
            self._refuse_lacking({*sample.gold["columns"], *sample.gold["media"]})
        refs = [part for part in sample.parts if isinstance(part, MediaRef)]
        shown = [ref.source for ref in refs if ref.kind == "image"]
        return replace(sample, gold={**sample.gold, "shown": shown})

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """None: what a right answer is like, the record or nobody says."""
        return None

    def score(self, gold: Any, answer: Answer) -> Score:
        """Call the functions on this answer alone."""
        return self.score_together([gold], [answer], Moment())[0]

    def score_together(
        self, golds: Sequence[Any], answers: Sequence[Answer], moment: Moment
    ) -> list[Score]:
        """Call each function once on all of the answers."""
        distinct = {id(gold): gold for gold in golds}  # answers to a prompt share theirs
        shown = {place: _with_pictures(gold) for place, gold in distinct.items()}
        held = [shown[id(gold)] for gold in golds]
        names = dict.fromkeys(name for each in held for name in each["columns"])
        call = Call(
            prompts=[each["prompt"] for each in held],
            texts=[answer.text for answer in answers],
            ids=[list(answer.ids) for answer in answers],
            columns={name: [each["columns"].get(name) for each in held] for name in names},
            state=TrainerState(moment.step, moment.steps),
        )
        judged = judge(self._loaded, call)
        return [self._score(judged, i) for i in range(len(answers))]

    def _score(self, judged: Sequence[Judged], place: int) -> Score:
        """What the functions say of one answer; those that return None do not apply to it."""
        logged = {
            k: v for each in judged for k, v in (each.logged[place : place + 1] or [{}])[0].items()
        }
        for function, each in zip(self.functions, judged, strict=True):
            if place in each.failures:
                reason = f"{function}: {each.failures[place]}"
                return Score({}, None, "unscorable", reason, logged=logged)
        values = zip(self._part_names, (each.rewards[place] for each in judged), strict=True)
        parts = {name: value for name, value in values if value is not None}
        if not parts and self.functions:
            reason = f"{', '.join(self.functions)} returned None"
            return Score({}, None, "unscorable", reason, logged=logged)
        return Score(parts, metric=parts.get(self.metric), logged=logged)

    @property
    def _loaded(self) -> list[RewardFunction]:
        return [load_function(function) for function in self.functions]

    @property
    def _part_names(self) -> list[str]:
        if len(self.functions) == 1:
            return ["reward"]
        return [function.rpartition(":")[2] for function in self.functions]


def _media(record: Record, name: str, value: Any) -> Any:
    """The sources of a column's media, one or a list; None where it holds none after all."""
    if isinstance(value, str) and not value:
        return None
    try:
        if isinstance(value, list | tuple) and kind_of(name) != "video":
            return [media_source(record, item) for item in value]
        return media_source(record, value)
    except ValueError:
        return None


def _verl_columns(fields: Fields, task: str) -> dict[str, Any]:
    """What verl calls its functions with, of a row in its layout or another."""
    gold = dig(fields.own, "reward_model.ground_truth")
    return {
        "data_source": fields.own.get("data_source", task),
        "ground_truth": fields.answer if gold is None else gold,
        "extra_info": fields.own.get("extra_info") or {},
    }


def _with_pictures(gold: Mapping[str, Any]) -> Mapping[str, Any]:
    """The prompt and the columns of a gold, with pictures in place of their sources."""
    media = {name: opened(source) for name, source in gold["media"].items()}
    prompt = gold["prompt"]
    if isinstance(prompt, list) and gold["shown"]:
        prompt = messages_with_pictures(prompt, opened(gold["shown"]))
    return {"prompt": prompt, "columns": {**gold["columns"], **media}}
