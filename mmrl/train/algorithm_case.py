"""An algorithm on given numbers, without a model: what an option does, in one command.

A case is JSON: `groups`, each a list of responses with a reward and, where the algorithm wants
them, log-probs and more (see `ResponseCase`); and `params`, the algorithm's section of a config.
The answer holds the shaped rewards, every token's advantage, the loss, and d loss / d log-prob.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from mmrl.algorithm import Algorithm
from mmrl.algorithms.compose import compose
from mmrl.algorithms.stages.policy_view import Aided, Collision, Implied, Mismatched
from mmrl.errors import DataError
from mmrl.stage import Context
from mmrl.train.losses import (
    policy_loss,
    positive_share,
    reduce,
    token_batch,
    token_weights,
)
from mmrl.types import (
    Episode,
    Extra,
    Finish,
    Floats,
    Group,
    Prompt,
    Response,
    Sample,
    Score,
    Status,
    TokenSpan,
    TrainSample,
)
from mmrl.validation import Section, validate


class ResponseCase(Section):
    """One response: its reward (a number, or named parts that are added), and what is known of it.

    Arrays have one value a token. `turns` and `steps` are [start, end, value] over tokens;
    `states` name what was seen before each turn. `logprobs_under` holds log-probs under the
    prompts of other variants, by variant (default: those under its own). `implied` and `aided` are
    of the whole response (`mmrl.algorithms.stages.policy_view`); `stored`: nobody sampled it.
    """

    reward: float | Mapping[str, float] | None
    logprobs: tuple[float, ...] | None = None
    old_logprobs: tuple[float, ...] | None = None
    ref_logprobs: tuple[float, ...] | None = None
    entropy: tuple[float, ...] | None = None
    self_certainty: tuple[float, ...] | None = None
    indecision: tuple[float, ...] | None = None
    values: tuple[float, ...] | None = None
    collision: tuple[float, ...] | None = None
    implied: float | None = None
    aided: float | None = None
    stored: bool = False
    ids: tuple[int, ...] | None = None
    length: int | None = Field(None, ge=0, description="tokens, where no array says so")
    truncated: bool = False
    text: str = ""
    status: Status | None = None
    variant: str = ""
    turns: tuple[tuple[int, int, float | None], ...] = ()
    steps: tuple[tuple[int, int, float], ...] = ()
    state: str = ""
    states: tuple[str, ...] = ()
    answer: str | None = None
    logprobs_under: Mapping[str, tuple[float, ...]] = Field(default_factory=dict)


class Case(Section):
    """Groups of responses, the algorithm's parameters, and where in a run they stand."""

    groups: tuple[tuple[ResponseCase, ...], ...]
    params: Mapping[str, Any] = Field(default_factory=dict)
    meta: tuple[Mapping[str, Any], ...] = Field((), description="meta of each group's sample")
    greedy: tuple[float, ...] = Field((), description="reward of each group's greedy answer")
    mismatched: tuple[float, ...] = Field((), description="log-ratio of another's answer, by group")
    step: int = Field(1, gt=0)
    total_steps: int = Field(1, gt=0)
    prompts_per_step: int | None = Field(None, gt=0, description="default: the groups given")
    max_new_tokens: int | None = Field(
        None, gt=0, description="what lengths follow; default: they are the papers' own"
    )
    update: int = Field(0, ge=0, description="which pass over the batch is evaluated")
    state: Mapping[str, Any] = Field(default_factory=dict, description="the algorithm's own")
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _CaseResponse(Response):
    """A response that says where it stands in the case: its group, and its place there."""

    place: tuple[int, int] = (0, 0)


def _place(response: Response) -> tuple[int, int] | None:
    """None: replayed from the algorithm's state, and so in no group of the case."""
    return response.place if isinstance(response, _CaseResponse) else None


def evaluate_file(
    name: str, path: Path, options: Mapping[str, Any] | None = None, *, as_json: bool
) -> str:
    """Read a case, evaluate an algorithm on it, and write the answer as JSON or as a table.

    `options` go over the `params` of the case.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: a case is a JSON object with `groups`")
    if options:
        values["params"] = {**values.get("params", {}), **options}
    result = evaluate_case(name, values)
    return json.dumps(result) if as_json else _table(result)


def _table(result: Mapping[str, Any]) -> str:
    more = f", asks for {result['wanted']} more prompts" if result["wanted"] else ""
    lines = [
        f"{result['algorithm']}: loss {result['loss']:.6f} (policy {result['policy_loss']:.6f}, "
        f"KL {result['kl']:.6f} x {result['kl_coefficient']:g}){more}",
        "group response prompt      advantages | d loss / d log-prob",
    ]
    for row in result["samples"]:
        advantages = " ".join(
            f"{a:+.6f}" if kept else "masked"
            for a, kept in zip(row["advantages"], row["mask"], strict=True)
        )
        gradient = " ".join(f"{g:+.6f}" for g in row["gradient"])
        where = f"{row['group']:5} {row['response']:8} {row['prompt'] or '-':11}"
        lines.append(f"{where} {advantages} | {gradient}")
    return "\n".join(lines)


def evaluate_case(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Carry an algorithm out on a case and return plain JSON data.

    Raises DataError for a case that does not fit its format or the algorithm's needs.
    """
    case: Case = validate(Case, dict(values), "case")
    algorithm = compose({**case.params, "name": name}, case.max_new_tokens)
    context = Context(
        step=case.step,
        total_steps=case.total_steps,
        prompts_per_step=case.prompts_per_step or max(len(case.groups), 1),
        rng=np.random.default_rng(case.seed),
        state=dict(case.state),
    )
    shaped = algorithm.shape_rewards(_groups(case), context)
    edited = algorithm.edit_groups(shaped, context)
    samples = algorithm.train_samples(edited.groups, context)
    samples = [_with_case(s, case, algorithm) for s in samples]
    if algorithm.sampler is not None:
        algorithm.sampler.observe(shaped, samples, context)
    return {
        "algorithm": algorithm.name,
        "rewards": _by_place(case, _rewards(shaped)),
        "kept": _kept(edited.groups),
        "edited_rewards": [[score.reward for score in group.scores] for group in edited.groups],
        "wanted": edited.wanted,
        **_losses(samples, case, algorithm, context),
        "state": context.state,
    }


def _losses(
    samples: Sequence[TrainSample],
    case: Case,
    algorithm: Algorithm,
    context: Context,
) -> dict[str, Any]:
    """The loss of one update, its parts, and its gradient at every log-prob."""
    samples = algorithm.updates.select(samples, case.update)
    current = [_current(s, case) for s in samples]
    policy, kl, gradients = _differentiate(samples, current, algorithm)
    coefficient = algorithm.kl.at(context) if algorithm.kl else 0.0
    rows = [
        _row(sample, of_policy + coefficient * of_kl, case)
        for sample, (of_policy, of_kl) in zip(samples, gradients, strict=True)
    ]
    return {
        "loss": policy + coefficient * kl,
        "policy_loss": policy,
        "kl": kl,
        "kl_coefficient": coefficient,
        "advantages": _by_place(case, _home(rows, "advantages")),
        "gradient": _by_place(case, _home(rows, "gradient")),
        "samples": rows,
    }


def _differentiate(
    samples: Sequence[TrainSample], current: Sequence[Floats], algorithm: Algorithm
) -> tuple[float, float, list[tuple[Floats, Floats]]]:
    """Policy loss and KL at the current log-probs, and the gradients [T] of both per sample."""
    gradients = [(np.zeros(len(lp)), np.zeros(len(lp))) for lp in current]
    trained = [i for i, sample in enumerate(samples) if sample.mask.any()]
    if not trained:
        return 0.0, 0.0, gradients
    weights = token_weights(samples, algorithm.reducer)
    leaves = [torch.tensor(current[i], dtype=torch.float64, requires_grad=True) for i in trained]
    batch = token_batch(
        [samples[i] for i in trained],
        [weights[i] for i in trained],
        torch.cat(leaves),
        positive_share(samples),
    )
    policy = policy_loss(batch, algorithm.objective)
    in_loss = algorithm.kl is not None and algorithm.kl.placement == "loss"
    kl = reduce(algorithm.kl.penalty(batch), batch) if algorithm.kl and in_loss else policy * 0
    slopes = [torch.autograd.grad(loss, leaves, retain_graph=True) for loss in (policy, kl)]
    for i, *found in zip(trained, *slopes, strict=True):
        gradients[i] = (found[0].numpy(), found[1].numpy())
    return float(policy.detach()), float(kl.detach()), gradients


def _row(sample: TrainSample, gradient: Floats, case: Case) -> dict[str, Any]:
    group, response = _place(sample.response) or (sample.group, -1)
    return {
        "group": group,
        "response": response,
        "prompt": sample.prompt.sample.variant,
        "own_prompt": _is_own(sample, case),
        "advantages": sample.advantages.tolist(),
        "mask": sample.mask.tolist(),
        "gradient": gradient.tolist(),
    }


def _home(rows: Sequence[Mapping[str, Any]], key: str) -> dict[tuple[int, int], Any]:
    """What each response has under its own prompt."""
    return {(r["group"], r["response"]): r[key] for r in rows if r["own_prompt"]}


def _is_own(sample: TrainSample, case: Case) -> bool:
    """True unless the sample stands under the prompt of another variant."""
    place = _place(sample.response)
    if place is None:
        return True
    return case.groups[place[0]][place[1]].variant == sample.prompt.sample.variant


def _rewards(groups: Sequence[Group]) -> dict[tuple[int, int], Any]:
    return {
        place: score.reward
        for group in groups
        for response, score in zip(group.responses, group.scores, strict=True)
        if (place := _place(response)) is not None
    }


def _kept(groups: Sequence[Group]) -> list[int]:
    """Which groups of the case are left after editing; replayed responses come from none."""
    places = [_place(response) for group in groups for response in group.responses]
    return sorted({place[0] for place in places if place is not None})


def _by_place(case: Case, found: Mapping[tuple[int, int], Any]) -> list[list[Any]]:
    """Nest values as the case nests its responses; null where there is none."""
    return [
        [found.get((g, i)) for i in range(len(responses))]
        for g, responses in enumerate(case.groups)
    ]


def _groups(case: Case) -> list[Group]:
    groups = []
    for index, responses in enumerate(case.groups):
        for variant in dict.fromkeys(r.variant for r in responses):
            chosen = [(i, r) for i, r in enumerate(responses) if r.variant == variant]
            made = [_response(r, (index, i)) for i, r in chosen]
            groups.append(_group(case, index, variant, [r for _, r in chosen], made))
    return groups


def _group(
    case: Case, index: int, variant: str, given: Sequence[ResponseCase], made: Sequence[Response]
) -> Group:
    meta = case.meta[index] if index < len(case.meta) else {}
    sample = Sample(str(index), "case", (), gold=None, variant=variant, meta=meta)
    nothing = np.zeros(0, dtype=np.int64)
    prompt = Prompt(sample, (), nothing, nothing.reshape(1, 0), 0, (), "unit")
    return Group(prompt, tuple(made), tuple(_score(r) for r in given), _extra(case, index, given))


def _extra(case: Case, index: int, given: Sequence[ResponseCase]) -> Extra:
    """What is known of a group besides; an array counts where every response has it."""
    return Extra(
        reference=_arrays([r.ref_logprobs for r in given]),
        entropy=_arrays([r.entropy for r in given]),
        self_certainty=_arrays([r.self_certainty for r in given]),
        indecision=_arrays([r.indecision for r in given]),
        values=_arrays([r.values for r in given]),
        steps=[[TokenSpan(*step) for step in r.steps] for r in given]
        if any(r.steps for r in given)
        else None,
        answers=[r.answer for r in given] if any(r.answer is not None for r in given) else None,
        greedy=case.greedy[index] if index < len(case.greedy) else None,
        own=tuple(_records(case, index, given)),
    )


def _records(case: Case, index: int, given: Sequence[ResponseCase]) -> Iterator[object]:
    """What a run would have measured of the group for comparisons."""
    if (collision := _arrays([r.collision for r in given])) is not None:
        yield Collision(collision)
    for kind, name in ((Implied, "implied"), (Aided, "aided")):
        if all(getattr(r, name) is not None for r in given):
            yield kind(np.array([getattr(r, name) for r in given]))
    if index < len(case.mismatched):
        yield Mismatched(case.mismatched[index])


def _arrays(given: Sequence[Sequence[float] | None]) -> list[Floats] | None:
    known = [np.array(values) for values in given if values is not None]
    return known if len(known) == len(given) else None


def _episode(given: ResponseCase) -> Episode | None:
    if not given.turns:
        return None
    states = given.states or (given.state,) * len(given.turns)
    if len(states) != len(given.turns):
        raise DataError(f"case: {len(given.turns)} turns with {len(states)} states")
    spans = (TokenSpan(*turn, state) for turn, state in zip(given.turns, states, strict=True))
    return Episode(tuple(spans), said=("",) * len(states))


def _response(given: ResponseCase, place: tuple[int, int]) -> _CaseResponse:
    arrays = {
        name: getattr(given, name)
        for name in ("logprobs", "old_logprobs", "ref_logprobs", "entropy", "values", "ids")
        if getattr(given, name) is not None
    }
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        where = f"groups.{place[0]}.{place[1]}"
        raise DataError(f"case: {where} has arrays of different lengths: {lengths}")
    length = next(iter(lengths.values()), 1 if given.length is None else given.length)
    ids = np.array(given.ids if given.ids is not None else range(length), dtype=np.int64)
    sampled = given.old_logprobs or given.logprobs
    logprobs = np.array(sampled if sampled is not None else [0.0] * length)
    if given.stored:
        logprobs = np.full(length, np.nan)
    finish: Finish = "length" if given.truncated else "stop"
    episode = _episode(given)
    return _CaseResponse(ids, logprobs, given.text, finish, episode=episode, place=place)


def _score(given: ResponseCase) -> Score:
    parts = given.reward if isinstance(given.reward, Mapping) else {}
    reward = sum(parts.values()) if isinstance(given.reward, Mapping) else given.reward
    status = given.status or ("truncated" if given.truncated else "ok")
    return Score(parts, metric=None, status=status, reward=reward)


def _with_case(sample: TrainSample, case: Case, algorithm: Algorithm) -> TrainSample:
    """Take old and reference log-probs from the case; without old ones the ratio is 1."""
    place = _place(sample.response)
    if place is None:
        return sample
    given = case.groups[place[0]][place[1]]
    sampled_here = given.old_logprobs is not None and _is_own(sample, case)
    old = np.array(given.old_logprobs) if sampled_here else None
    sample = replace(sample, old_logprobs=old)
    if not algorithm.loss_needs_reference:
        return sample
    if given.ref_logprobs is None:
        raise DataError(f"case: '{algorithm.name}' needs ref_logprobs of every response")
    return replace(sample, ref_logprobs=np.array(given.ref_logprobs))


def _current(sample: TrainSample, case: Case) -> Floats:
    """The log-probs of the policy that trains, under the sample's prompt."""
    place = _place(sample.response)
    if place is None:
        return sample.response.logprobs
    given = case.groups[place[0]][place[1]]
    values = given.logprobs_under.get(sample.prompt.sample.variant, given.logprobs)
    return sample.response.logprobs if values is None else np.array(values)
