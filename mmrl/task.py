"""The task contract: one module asks a data set's records and scores the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from mmrl.corpus.completion import completion
from mmrl.corpus.fields import Fields, NoColumn, fields_of
from mmrl.corpus.shown import complete
from mmrl.corpus.sides import hangs_on_sides
from mmrl.records import read_records
from mmrl.types import Answer, MediaRef, Observation, Record, Sample, Score, Text

Better = Literal["higher", "lower"]
"""Which way a metric is better: accuracy rises, an error falls."""

Scope = Literal["answer", "group", "batch"]
"""What is scored in one call: an answer, all answers to a prompt, or all of a step."""

Keeps = Literal["", "noise", "turns"]
"""What pictures may be given while a question's gold stays known: nothing; noise and blur; those,
and turns and flips where no word of the question hangs on sides (the Frame maps coordinates)."""

FIRST_STATE = "start"
"""Key of the state that a live episode begins in, whenever it is in it again."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When answers are scored: after `step` of `steps` updates; 0 of 0 outside of a training."""

    step: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class RewardPart:
    """A named term of the reward: its declared range and its default weight.

    `optional`: a score without it is whole, it does not apply to that answer and adds nothing.
    """

    low: float
    high: float
    weight: float = 1.0
    optional: bool = False


def mean(values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
    """Aggregate per-record metrics as a plain mean; the default `Task.aggregate`.

    Args:
        values: the metric of every record, in order.
        metas: what is known of every record; not read.

    Example:
        >>> mean([1.0, 0.0], [{}, {}])
        0.5
    """
    return sum(values) / len(values)


def mean_by(
    key: str, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Mean of the per-record metrics in each group of records that share `meta[key]`.

    Args:
        key: what records are grouped by; every meta has it.
        values: the metric of every record, in order.
        metas: what is known of every record, in the same order.

    Returns:
        Means by group, in the order of the groups' names.

    Example:
        >>> mean_by("type", [1.0, 0.0], [{"type": "bar"}, {"type": "pie"}])
        {'bar': 1.0, 'pie': 0.0}
    """
    groups: dict[str, list[float]] = {}
    for value, meta in zip(values, metas, strict=True):
        groups.setdefault(str(meta[key]), []).append(value)
    return {name: sum(groups[name]) / len(groups[name]) for name in sorted(groups)}


def mean_by_each(
    keys: Sequence[str], values: Sequence[float], metas: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Mean of the per-record metrics in the groups of each of several keys.

    Args:
        keys: what records are grouped by; one without a key is in none of its groups, one with a
            list there in each of them.
        values: the metric of every record, in order.
        metas: what is known of every record, in the same order.

    Returns:
        Means by `key/group`.

    Example:
        >>> mean_by_each(("type",), [1.0, 0.0], [{"type": ["bar", "pie"]}, {"type": "pie"}])
        {'type/bar': 1.0, 'type/pie': 0.5}
    """
    groups: dict[str, list[float]] = {}
    for value, meta in zip(values, metas, strict=True):
        for key in keys:
            found = meta.get(key)
            for name in found if isinstance(found, list | tuple) else [found]:
                if name is not None:
                    groups.setdefault(f"{key}/{name}", []).append(value)
    return {name: sum(groups[name]) / len(groups[name]) for name in sorted(groups)}


PICTURES = ("image", "screenshot")
NOISE = frozenset({"noise", "blur"})


def with_options(sample: Sample, options: Mapping[str, Any]) -> Sample:
    """Set options on all images and screenshots of a sample; its gold stays as it is.

    Args:
        sample: the question as it stands.
        options: those of a picture, put over its own.

    Example:
        >>> sample = Sample("1", "t", (MediaRef("image", "a.png"),), gold="dog")
        >>> with_options(sample, {"turn": "mirror"}).parts[0].options
        {'turn': 'mirror'}
    """
    parts = (
        replace(part, options={**part.options, **options})
        if isinstance(part, MediaRef) and part.kind in PICTURES
        else part
        for part in sample.parts
    )
    return replace(sample, parts=tuple(parts))


class Task(Protocol):
    """What a task module provides; a frozen dataclass whose fields are its parameters.

    `score` is pure, takes plain data and runs in a worker process with a deadline. It returns
    the reward parts and the benchmark metric of the same answer; it never returns 0 for what it
    could not judge, it raises.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    parts: ClassVar[Mapping[str, RewardPart]]
    metric: ClassVar[str]
    better: ClassVar[Better] = "higher"
    official: ClassVar[Mapping[str, Any]] = {}
    """Parameters under which the metric reads answers as the benchmark's own script does; an
    evaluation reports both readings of the same answers."""
    own_tools: ClassVar[Mapping[str, str]] = {}
    """Tools that its prompt offers itself: what the model calls them, and which they are; its
    score then reads the whole episode (`environments/tooled.py`)."""
    world: ClassVar[str] = ""
    """What its episodes live in: `module:function` of f(task) -> a world of environments. `step`
    then only reads the turn and gives the state `{"start": ..., "actions": [...]}`; the environment
    carries the last action out and says what is seen (`environments/environment.py`)."""
    hosting: ClassVar[str] = ""
    """What plays its episodes instead: `module:function` of f(task) -> `environments/host.py`'s
    Hosting. That calls the model itself, and gives the verdict."""
    scope: ClassVar[Scope | None] = None
    """What `score_together` gets in a call; None: answers are scored alone, by `score`."""
    keeps: ClassVar[Keeps] = ""
    """How its pictures may be changed while it knows the gold; `changed` says the rest."""
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules that `score` imports lazily; a worker imports them before its deadlines start."""

    def own_records(self, path: Path) -> Iterator[Record] | None:
        """Read a form that only this task's data have; None: one of those that every task reads."""
        return None

    def records(
        self,
        path: Path,
        columns: Mapping[str, str | None] | None = None,
        roots: Sequence[Path] = (),
    ) -> Iterator[Record]:
        """Read raw records in a stable order; see `mmrl.records.read_records`."""
        own = self.own_records(path)
        if own is None:
            return read_records(path, columns, roots)
        return (
            replace(r, fields=Fields(dict(r.fields.items()), columns), roots=tuple(roots))
            for r in own
        )

    def sample(self, record: Record) -> Sample:
        """Ask a record's question, as `ask` wants it.

        A gold that does not parse raises ValueError with the reason.

        Args:
            record: one line of the data; media paths are relative to its `root`.

        Returns:
            The question with its media by reference, a gold of plain data, and a target.
        """
        ...

    def ask(self, record: Record) -> Sample:
        """Ask a record: its question, what it shows, what was said before, its own completion.

        Raises ValueError with the reason where it cannot be asked, or not whole.
        """
        record = replace(record, fields=fields_of(record))
        try:
            sample = self.sample(record)
        except NoColumn as error:
            known = ", ".join(record.fields)
            raise ValueError(
                f"no column {error}; the record has: {known:.200}; "
                f"columns.{error.mapped_as}=NAME says which it is"
            ) from None
        if sample.turns < 1:
            raise ValueError(f"an episode has one turn at least, the task says {sample.turns}")
        return complete(sample, record)

    def score(self, gold: Any, answer: Answer) -> Score:
        """Grade one answer. Linear in the answer's length, no side effects.

        Args:
            gold: what `sample` put into `Sample.gold`.
            answer: the text, whether it was cut, and how the model saw the media.

        Returns:
            Every declared part within its range, the metric of this answer, and how it parsed.
        """
        ...

    def score_together(
        self, golds: Sequence[Any], answers: Sequence[Answer], moment: Moment
    ) -> list[Score]:
        """Grade several answers in one call, for a task with a `scope`.

        What it raises makes all of them unscorable; its deadline is that of as many answers.

        Args:
            golds: what `sample` put into `Sample.gold`, for each answer.
            answers: those of a group, of a step, or one.
            moment: how far the training is.

        Returns:
            A score for each answer.
        """
        return [self.score(gold, answer) for gold, answer in zip(golds, answers, strict=True)]

    def step(self, gold: Any, state: Any, answer: Answer) -> Observation:
        """Carry out one turn of an episode that began at `Sample.start`: the environment.

        `state` is that of the observation the turn was written in; `answer` holds the turn's text
        and, in `turns`, those of all turns so far. Pure, plain data, runs where `score` runs and
        with its deadline: what it needs to go on is in the state. A turn that cannot be read is
        a turn, with an observation that says so; what raises makes the episode unscorable. After
        the last turn `score` gets the environment's last verdict as `Answer.outcome`.

        Args:
            gold: what `sample` put into `Sample.gold`.
            state: plain JSON, as the observation before held it.
            answer: the turn, with all turns so far.

        Returns:
            What the environment shows next; `done` where the model has no further turn.
        """
        raise NotImplementedError(f"task '{self.name}' has no environment")

    def follow_up(self, sample: Sample, text: str) -> Sample | None:
        """Ask the policy about an answer, in a prompt of its own, before that is scored.

        What it says greedily is the `Answer.followed` that `score` finds; nothing of it is trained.

        Args:
            sample: the question that was answered.
            text: the answer.

        Returns:
            The second question, of the same task, or None where there is none to ask.
        """
        return None

    def aggregate(self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]) -> float:
        """Turn per-record metrics into the benchmark's number.

        A record's meta is `Sample.meta` with its score's `evidence` merged over it. An answer that
        never reached a verdict has value 0 and no evidence, so what a corpus-level number needs of
        the gold (how many boxes there are to find) belongs in `Sample.meta`.

        Args:
            values: the metric of every record, in order.
            metas: what is known of every record, in the same order.

        Returns:
            One number, in the direction that `better` says.
        """
        return mean(values, metas)

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """Secondary benchmark numbers by name: per group, other thresholds; {} if there are none.

        Takes what `aggregate` takes.
        """
        return {}

    def changed(self, sample: Sample, options: Mapping[str, Any]) -> Sample | None:
        """Return the same question about its pictures with these options (turned, noisy).

        None where the gold would not be known then: as `keeps` says, and where there is no picture.
        A task whose gold changes with the picture has a `changed` of its own; `task.with_options`
        sets options for it.

        Args:
            sample: the question as it stands.
            options: those of a picture, such as `{"turn": "mirror"}`.

        Returns:
            The question with the options on its pictures, its gold as it is then.
        """
        kinds = {part.kind for part in sample.parts if isinstance(part, MediaRef)}
        allowed = NOISE if self.keeps else frozenset[str]()
        if self.keeps == "turns" and not hangs_on_sides(self.asked(sample)):
            allowed |= {"turn"}
        shown = bool(kinds & set(PICTURES))
        return with_options(sample, options) if shown and options.keys() <= allowed else None

    def asked(self, sample: Sample) -> str:
        """What its question says that may hang on sides, without what the task always says."""
        return " ".join(part.text for part in sample.parts if isinstance(part, Text))

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """Write the completion that earns full marks, for supervised phases and self-checks.

        `answer` carries the frames and the coordinate space; its text is ignored. Of an episode it
        writes the turn in the observation `sample.start`.

        Args:
            sample: the question, its gold among it.
            answer: how the model saw the media, and what coordinates mean to it.

        Returns:
            A completion, or None where none is known.
        """
        return sample.target

    def completion(self, sample: Sample, answer: Answer) -> str | None:
        """The completion that a supervised phase trains: the record's own, in the task's form.

        `answer` as in `target`, which it is without one. Raises ValueError where what the record
        gives contradicts its gold.
        """
        own = self.target(sample, answer)
        given = sample.reference
        if given is None or not (given.text or given.thought) or sample.start is not None:
            return own
        return completion(
            given, own, lambda text: self.score(sample.gold, replace(answer, text=text))
        )
