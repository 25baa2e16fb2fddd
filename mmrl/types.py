"""The pipeline's values, of L prompt and T response tokens, G responses: Record -> Sample -> Media
-> Prompt -> Response -> Score -> Group -> TrainSample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from mmrl.frame import Frame, Mark, Space

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
MediaKind = Literal["image", "video", "audio", "screenshot"]
Status = Literal["ok", "missing", "malformed", "multiple", "refusal", "truncated", "unscorable"]
Finish = Literal["stop", "length"]
Role = Literal["user", "tool"]


@dataclass(frozen=True, slots=True)
class Record:
    """One raw line of a data set, its id stable between runs, its media under `root` or `roots`."""

    id: str
    fields: Mapping[str, Any]
    root: Path
    roots: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """User text; special-token strings in it are data and are escaped by the family."""

    text: str


MediaSource = Path | bytes | str  # a path under a record's roots, encoded bytes, or a URL


@dataclass(frozen=True, slots=True)
class MediaRef:
    """A medium by reference, options of its modality; several sources are the frames of a video."""

    kind: MediaKind
    source: MediaSource | tuple[MediaSource, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


Part = Text | MediaRef


@dataclass(frozen=True, slots=True)
class Observation:
    """Where an episode of several turns stands; its state is plain JSON data.

    `state` is what the environment goes on from; `key` names what the model sees; `text` is the
    turn that tells of it, `parts` that turn where it has media, said in a `role`, after turns of
    `history`. `reward` is what the last turn earned alone, `outcome` the verdict so far, 0 to 1.
    `done`: no further turn.
    """

    state: Any
    key: str
    text: str = ""
    reward: float | None = None
    outcome: float | None = None
    done: bool = False
    parts: tuple[Part, ...] = ()
    role: Role = "user"
    history: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """The right completion a record gives, its thought, and all it holds with what each earned."""

    text: str = ""
    thought: str = ""
    ranked: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """A question ready to be asked, with its typed gold (plain, picklable data).

    `key` names the base question: variants of one sample share it and differ in `variant`.
    `target` is the completion that the task writes of the gold, None where it writes none;
    `reference` what the record gives itself, which supervised phases prefer. `history` are the
    turns before the question: each a role and how many of the parts, from the first on, it has;
    `tools` are the template's. `start` begins an episode of up to `turns` turns; None: one answer.
    """

    id: str
    task: str
    parts: tuple[Part, ...]
    gold: Any
    system: str | None = None
    target: str | None = None
    variant: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    start: Observation | None = None
    turns: int = 1
    history: tuple[tuple[str, int], ...] = ()
    reference: Reference | None = None
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def key(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True)
class Media:
    """A decoded medium, its Frame, and a hash of its decoded content and options.

    `array` is uint8 [H, W, 3] for an image or screenshot, [frames, H, W, 3] for a video, float32
    [samples] for audio. `track` is a video's own sound, float32 [samples] at `rate` a second.
    """

    kind: MediaKind
    array: npt.NDArray[Any]
    frame: Frame
    hash: str
    track: npt.NDArray[Any] | None = None
    rate: int = 0


@dataclass(frozen=True, slots=True)
class EncodedMedium:
    """A medium as its model family takes it: processor tensors and the placeholders it fills.

    `expansion` is the text that stands for it in an expanded prompt, or empty where one placeholder
    is repeated `num_tokens` times. Left out, tensors are made of `source` when a pass needs them.
    """

    kind: MediaKind
    hash: str
    tensors: Mapping[str, torch.Tensor]
    num_tokens: int
    frame: Frame
    expansion: str = ""
    source: MediaRef | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sample in both views that one function makes: compact for engines, expanded for training.

    `compact_ids` has one placeholder for each medium; `ids` [L] has one for each feature row.
    `positions` is [axes, L] (three rope axes, or one; floating point where video frames are spaced
    by fractions); a response starts at `next_position`. `blocks` [L] numbers, from 1, the runs of
    tokens that see each other both ways, in all layers or only in those with a sliding window; 0 or
    None is causal. `media` and `frames` are in the order of the sample's parts, `placed` in that of
    the placeholders (some templates put images first). `space` is the coordinate convention of the
    answers, `home` the rank of the process with the media's tensors: others have frames alone.
    `shrunk`: its media are smaller than configured. `opening`: the thought the template begins.
    """

    sample: Sample
    compact_ids: tuple[int, ...]
    ids: Ints
    positions: npt.NDArray[Any]
    next_position: float
    media: tuple[EncodedMedium, ...]
    space: Space
    blocks: Ints | None = None
    blocks_slide_only: bool = False
    order: tuple[int, ...] | None = None
    home: int = 0
    shrunk: bool = False
    opening: str = ""

    @property
    def placed(self) -> tuple[EncodedMedium, ...]:
        """The media in the order of their placeholders."""
        return self.media if self.order is None else tuple(self.media[i] for i in self.order)

    @property
    def frames(self) -> tuple[Frame, ...]:
        return tuple(m.frame for m in self.media)


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Tokens [start, end) of a turn or step, what they earned alone, and what was seen before."""

    start: int
    end: int
    value: float | None = None
    state: str = ""


@dataclass(frozen=True, slots=True)
class Episode:
    """What a response of several turns consists of, and how its episode ended.

    `turns` are the tokens that the model wrote, what each turn earned, and the key of what it was
    written in; the tokens between are the environment's. `said` are the turns' texts, `screens` the
    Frame shown last before each. `failure`: why no `outcome`; `left_out`: screens gone or small.
    """

    turns: tuple[TokenSpan, ...]
    said: tuple[str, ...]
    outcome: float | None = None
    failure: str = ""
    screens: tuple[Frame | None, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    """Media of later turns in token order, without tensors, their source at the prompt's home.

    `positions` [axes, T] and `blocks` [T] are of all tokens, `turns` what each was shown before.
    """

    positions: npt.NDArray[Any]
    blocks: Ints | None
    media: tuple[EncodedMedium, ...]
    turns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """A sampled completion: token ids [T] (end token included) and their log-probs [T].

    Log-probs are of the policy that sampled, at its temperature, with placeholders banned. In an
    episode the environment's tokens have log-prob 0, `text` is what the model said, a line a turn,
    `observed` are the media of later turns; its `branches` have prompts of their own. What sampled
    it had been trained for `policy_version` steps, None: all so far. `followed`: `Task.follow_up`.
    """

    ids: Ints
    logprobs: Floats
    text: str
    finish: Finish
    policy_version: int | None = None
    episode: Episode | None = None
    observed: Observed | None = None
    branches: tuple[tuple[Prompt, Response], ...] = ()
    followed: str | None = None

    @property
    def truncated(self) -> bool:
        return self.finish == "length"

    def staleness(self, step: int) -> int:
        """Steps by which its weights are older than those that step `step` begins with."""
        return 0 if self.policy_version is None else step - 1 - self.policy_version

    @property
    def written(self) -> Bools:
        """True for the tokens [T] that the model wrote."""
        mask = np.full(len(self.ids), self.episode is None)
        for turn in self.episode.turns if self.episode else ():
            mask[turn.start : turn.end] = True
        return mask


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verifier sees of a response: plain picklable data, no model and no tensors.

    `frames` are of the sample's media, `shown` to environments alone. `outcome` is an environment's
    verdict, 0 to 1; None: none, or it failed. `turns` are an episode's texts, `screens` the Frame
    last shown before each, `ids` its tokens. `opening`: what a template wrote; `followed`: a reply.
    """

    text: str
    truncated: bool = False
    frames: tuple[Frame, ...] = ()
    space: Space = "processed_pixels"
    outcome: float | None = None
    turns: tuple[str, ...] = ()
    opening: str = ""
    screens: tuple[Frame | None, ...] = ()
    shown: tuple[MediaRef, ...] = ()
    ids: tuple[int, ...] = ()
    followed: str | None = None


@dataclass(frozen=True, slots=True)
class SpanScore:
    """A score for a part of the response: characters [start, end) of its text."""

    start: int
    end: int
    value: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A graded answer: named reward parts, the benchmark's own number, and how parsing went.

    `reward` is the weighted sum of the parts, filled in by the scoring runtime; None is unscorable
    (the verifier failed), never 0. `metric` is the part in the task's benchmark number, `evidence`
    what that needs besides: JSON, merged over the sample's meta; `logged` is what a reward says,
    `marks` what was found where.
    """

    parts: Mapping[str, float]
    metric: float | None
    status: Status = "ok"
    reason: str = ""
    reward: float | None = None
    spans: tuple[SpanScore, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    logged: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What a group carries beside its scores; None: nothing of the kind. Sequences are [G].

    Measured of the responses, for algorithms that need it (`mmrl.stage.NEEDS`), of every token [T]:
    log-probs of the `reference`, `entropy` in nats, `self_certainty`, `indecision`, `values`; the
    characters before each token and in all, `offsets` [T + 1]; the LM head's `gradient_norms`; the
    reward of a `greedy` answer (NaN: unscorable). By the rollout: `cuts`, tokens after which a
    thought was cut, `steps`, what its parts earned; answers at a cut have the thought so far as
    `head`, their place among budgets as `budget`, the mean reward at it as `baseline`. By stages:
    `answers` where the text has none, `penalties`, weighed KL [T], `replayed`, older ones, `own`.
    """

    reference: Sequence[Floats] | None = None
    entropy: Sequence[Floats] | None = None
    self_certainty: Sequence[Floats] | None = None
    indecision: Sequence[Floats] | None = None
    values: Sequence[Floats] | None = None
    offsets: Sequence[Ints] | None = None
    gradient_norms: Sequence[float] | None = None
    greedy: float | None = None
    cuts: Sequence[Sequence[int]] | None = None
    steps: Sequence[Sequence[TokenSpan]] | None = None
    head: str | None = None
    budget: int | None = None
    baseline: float | None = None
    answers: Sequence[str | None] | None = None
    penalties: Sequence[Floats] | None = None
    replayed: tuple[int, ...] = ()
    own: tuple[object, ...] = ()

    def of(self, kind: type[T]) -> T | None:
        """The record of a type that was put into `own` last, if any."""
        return next((record for record in reversed(self.own) if isinstance(record, kind)), None)


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with its G scored responses. `extra` carries what is known of them besides."""

    prompt: Prompt
    responses: tuple[Response, ...]
    scores: tuple[Score, ...]
    extra: Extra = field(default_factory=Extra)

    @property
    def rewards(self) -> Floats:
        """Rewards [G]; NaN where the answer is unscorable."""
        return np.array([np.nan if s.reward is None else float(s.reward) for s in self.scores])


@dataclass(frozen=True, slots=True)
class TrainSample:
    """One (prompt, response) pair to learn from; arrays are [T], aligned with `response.ids`.

    `mask`: tokens that enter the loss. `old_logprobs` None: the policy's before the step's updates.
    `group` ties those of a rollout group; `origin` is its place in the step and the response's in
    it. `positive`: a right answer, for objectives that imitate; others read `second` as well. A
    critic learns `returns` and said `values`. `sampled` False: not of this prompt, or of no policy.
    `older`: of older weights. `correction` weighs losses. A `branch` is of the one before it.
    """

    prompt: Prompt
    response: Response
    advantages: Floats
    mask: Bools
    old_logprobs: Floats | None = None
    ref_logprobs: Floats | None = None
    group: int = 0
    positive: bool = False
    returns: Floats | None = None
    values: Floats | None = None
    sampled: bool = True
    correction: Floats | None = None
    second: Floats | None = None
    origin: tuple[int, int] = (0, 0)
    older: bool = False
    branch: bool = False
