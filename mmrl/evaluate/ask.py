"""Records -> the benchmark's number: the same `score()` as in training, every record counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mmrl.algorithms.stages.verification import NO, YES, verification
from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import MediaError
from mmrl.evaluate.answers import Answers, Asked, question_of
from mmrl.evaluate.summary import Evaluation, Scored, summarise
from mmrl.policy.encoder import Encodes
from mmrl.runlog.transcript import Thumbnails
from mmrl.scoring.groups import whole_episode, whole_text
from mmrl.scoring.pool import ScoreJob, Scores, unscorable
from mmrl.task import Task
from mmrl.types import EncodedMedium, MediaRef, Prompt, Response, Sample

ANSWERS_AT_ONCE = 64


@dataclass(frozen=True)
class Asking:
    """How records are asked: `count` answers each, sampled so, from this seed.

    `verify`: what the policy is asked about each of its answers, if anything.
    """

    sampling: Sampling
    count: int = 1
    seed: int = 0
    verify: str = ""


def evaluate(
    samples: Sequence[Sample],
    task: Task,
    encoder: Encodes,
    engine: Engine,
    scorer: Scores,
    sampling: Sampling,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Answer every sample once and aggregate as the task says; `on_progress` as in `ask`."""
    answers = Answers()
    ask(samples, Asking(sampling), encoder, engine, answers, on_progress)
    return summarise(score(samples, samples[0].task, 1, answers, scorer), task)


def ask(
    samples: Sequence[Sample],
    asking: Asking,
    encoder: Encodes,
    engine: Engine,
    answers: Answers,
    on_progress: Callable[[int], None] = lambda done: None,
    pictures: Thumbnails | None = None,
) -> None:
    """Ask what is not answered yet, a few records at a time, each kept before the next are asked.

    Where a part of the work begins and its random numbers depend on the samples alone, so that an
    evaluation that was killed and goes on gives the answers of one that was not. `on_progress`
    hears how many records are done; with `pictures`, a thumbnail of each medium is written.
    """
    stride = max(1, ANSWERS_AT_ONCE // asking.count)
    for start in range(0, len(samples), stride):
        part = samples[start : start + stride]
        missing = [s for s in part if answers.find(s, asking.count) is None]
        if missing:
            answers.add(_ask(missing, asking, start, encoder, engine, pictures))
        on_progress(start + len(part))


def _ask(
    samples: Sequence[Sample],
    asking: Asking,
    start: int,
    encoder: Encodes,
    engine: Engine,
    pictures: Thumbnails | None,
) -> list[Asked]:
    encoded = encoder.encode([(sample,) for sample in samples])
    prompts = [p for each in encoded if not isinstance(each, MediaError) for p in each]
    responses: dict[str, list[Response]] = {}
    verdicts: dict[str, tuple[float, ...]] = {}
    if prompts:
        counts = [asking.count] * len(prompts)
        drawn = engine.generate(prompts, counts, asking.sampling, asking.seed + start)
        responses = {p.sample.id: rs for p, rs in zip(prompts, drawn, strict=True)}
        if asking.verify:
            verdicts = verified(prompts, drawn, asking.verify, encoder, engine, asking.seed + start)
    rows = []
    for sample, each in zip(samples, encoded, strict=True):
        question = question_of(sample)
        if isinstance(each, MediaError):
            rows.append(Asked(sample.id, question, unreadable=str(each) or "unreadable"))
        else:
            (prompt,) = each
            seen = _seen(prompt, encoder, pictures)
            made = _asked(question, prompt, responses[sample.id], seen)
            rows.append(replace(made, verdicts=verdicts.get(sample.id, ())))
    return rows


def verified(
    prompts: Sequence[Prompt],
    drawn: Sequence[Sequence[Response]],
    question: str,
    encoder: Encodes,
    engine: Engine,
    seed: int,
) -> dict[str, tuple[float, ...]]:
    """The chance that the policy gives each of its answers to be right, by the sample's id.

    It is read off the likeliest first token of its verdict: p of a `Yes`, 1 - p of a `No`, and 0 of
    anything else, or where the answer is too long to be asked about.
    """
    asked = [
        (verification(prompt.sample, whole_text(response), question),)
        for prompt, responses in zip(prompts, drawn, strict=True)
        for response in responses
    ]
    encoded = encoder.encode(asked)
    shown = [p for each in encoded if not isinstance(each, MediaError) for p in each]
    said = engine.generate(shown, [1] * len(shown), Sampling(1, 0.0), seed) if shown else []
    left = iter(said)
    chances = iter([0.0 if isinstance(e, MediaError) else _chance(*next(left)) for e in encoded])
    return {
        prompt.sample.id: tuple(next(chances) for _ in responses)
        for prompt, responses in zip(prompts, drawn, strict=True)
    }


def _chance(verdict: Response) -> float:
    word, p = verdict.text.strip().casefold(), float(np.exp(verdict.logprobs[0]))
    if word and YES.casefold().startswith(word):
        return p
    return 1 - p if word and NO.casefold().startswith(word) else 0.0


def _seen(
    prompt: Prompt, encoder: Encodes, pictures: Thumbnails | None
) -> tuple[dict[str, Any], ...]:
    if pictures is None:
        return ()
    lacking: Callable[[EncodedMedium], bool] = pictures.lacks
    media = encoder.decoded(prompt, lacking)
    return tuple(pictures.describe(medium, media) for medium in prompt.media)


def _asked(
    question: str, prompt: Prompt, responses: Sequence[Response], media: tuple[dict[str, Any], ...]
) -> Asked:
    played = [whole_episode(response) for response in responses]
    episodes = [episode for episode in played if episode is not None]
    return Asked(
        id=prompt.sample.id,
        question=question,
        texts=tuple(map(whole_text, responses)),
        truncated=tuple(response.truncated for response in responses),
        lengths=tuple(len(response.ids) for response in responses),
        turns=tuple(episode.said for episode in episodes),
        outcomes=tuple(episode.outcome for episode in episodes),
        screens=tuple(episode.screens for episode in episodes),
        failures=tuple(episode.failure for episode in episodes),
        frames=prompt.frames,
        space=prompt.space,
        opening=prompt.opening,
        media=media,
        followed=tuple(response.followed for response in responses),
    )


def score(
    samples: Sequence[Sample], key: str, count: int, answers: Answers, scorer: Scores
) -> list[Scored]:
    """Score the answers of all samples by the scorer's task of that key.

    An episode whose environment failed is unscorable, whatever the verifier would say.
    """
    asked: list[tuple[Sample, Asked]] = []
    for sample in samples:
        row = answers.find(sample, count)
        assert row is not None, "a sample was not asked"
        asked.append((without_bytes(sample), row))
    jobs = [
        ScoreJob(key, sample.gold, answer, i)
        for i, (sample, row) in enumerate(asked)
        for answer, failure in zip(row.answers(), _failures(row), strict=True)
        if not failure
    ]
    scores = iter(scorer.score(jobs))
    return [
        Scored(
            sample,
            row.texts,
            row.truncated,
            tuple(unscorable(why) if why else next(scores) for why in _failures(row)),
            row.unreadable,
            row.frames,
            row.lengths,
            row.verdicts,
        )
        for sample, row in asked
    ]


def _failures(row: Asked) -> tuple[str, ...]:
    return row.failures or ("",) * len(row.texts)


def without_bytes(sample: Sample) -> Sample:
    """The sample without the encoded media in it: what is left can be held for every record."""
    return replace(
        sample,
        parts=tuple(
            replace(part, source="") if isinstance(part, MediaRef) else part
            for part in sample.parts
        ),
    )


def sampling_settings(asking: Asking) -> dict[str, Any]:
    """What answers depend on, besides the model and the records."""
    verify = {"verify": asking.verify} if asking.verify else {}
    settings = {**asdict(asking.sampling), **verify}
    return {**settings, "samples": asking.count, "seed": asking.seed}
