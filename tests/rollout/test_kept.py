"""A rollout's pass over the prompts that is the update's too: once a step, and the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrl.algorithms.compose import compose
from mmrl.config import RunConfig
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.policy import Policy
from mmrl.train.keeping import kept_tokens
from mmrl.train.learner import Learner
from mmrl.types import Group, Prompt, Score, TrainSample
from tests.algorithms.cases import context
from tests.families.cases import (
    Case,
    ask,
    compare_gradients,
    make,
    policy,
)
from tests.families.tiny import TINY
from tests.train.test_learner import Gradients

SAMPLED = Sampling(12, 1.0, to_train=True)
COUNTS = [4, 3, 1]


class Kept(Gradients):
    """Leaves the gradients where they are."""

    def step(self, place: int | None = None) -> float:
        self.steps.append(torch.zeros(1))
        return 0.0


def learner(made: Policy, room: int, budget: int = 10_000, **section: object) -> Learner:
    algorithm = compose({"name": "grpo", **section})
    return Learner(
        made,
        algorithm,
        Kept(made),
        temperature=1.0,
        tokens_per_micro_batch=budget,
        kept_tokens=room,
    )


def prompts_of(made: Policy, name: str) -> list[Prompt]:
    kind = TINY[name].kinds[0]
    words = ("What is this?", "Say something, and more than that, please.", "And now?")
    media = (make(kind, 1),), (), (make(kind, 2),)
    return [ask(made, Case((*shown, text))) for shown, text in zip(media, words, strict=True)]


def rolled_out(made: Policy, prompts: list[Prompt], how: Sampling = SAMPLED) -> list[Group]:
    """Groups of random rewards; the second is dropped, as an editor might."""
    rng = np.random.default_rng(3)
    answers = HFEngine(made).generate(prompts, COUNTS, how, 5)
    found = []
    for prompt, group in zip(prompts, answers, strict=True):
        cut = [int(rng.integers(1, len(r.ids) + 1)) for r in group]
        given = [
            replace(r, ids=r.ids[:n], logprobs=r.logprobs[:n])
            for r, n in zip(group, cut, strict=True)
        ]
        scores = tuple(Score({}, None, reward=float(rng.normal())) for _ in given)
        found.append(Group(prompt, tuple(given), scores))
    return [found[0], found[2]]


def samples(made: Learner, groups: list[Group]) -> list[TrainSample]:
    shaped = made._algorithm.shape_rewards(made.observe(groups), context())
    return made._algorithm.train_samples(shaped, context())


@pytest.mark.parametrize("budget", [1, 10_000])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("name", TINY)
def test_an_update_behind_kept_prompts_is_the_update(
    name: str, checkpointing: bool, budget: int
) -> None:
    found = []
    for room in (10_000, 0):
        made = policy(name)
        if checkpointing:
            made.model.gradient_checkpointing_enable({"use_reentrant": False})
        trained = learner(made, room, budget, numerics="trl")
        groups = rolled_out(made, prompts_of(made, name))
        assert (made.kept.find(_content(groups[0].prompt)) is not None) == bool(room)
        stats = trained.update(samples(trained, groups), 0.0)
        assert not made.kept._ran and not made.kept._places
        found.append((made, stats, [r.ids for g in groups for r in g.responses]))
    (kept, stats, ids), (fresh, wanted, others) = found
    assert all(np.array_equal(a, b) for a, b in zip(ids, others, strict=True))
    assert stats.loss is not None and wanted.loss is not None
    assert abs(stats.loss - wanted.loss) < 1e-5
    compare_gradients(kept.model, fresh.model)


def _content(prompt: Prompt) -> object:
    from mmrl.policy.packing import content_of

    return content_of(prompt)


def passes(made: Policy, work: Callable[[], object]) -> tuple[int, int]:
    """Patches through the tower and tokens through the trunk."""
    patches: list[int] = []
    tokens: list[int] = []

    def tower(module: object, args: tuple[torch.Tensor, ...], kwargs: dict[str, object]) -> None:
        patches.append(len(args[0] if args else kwargs["hidden_states"]))  # type: ignore[arg-type]

    def trunk(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        tokens.append(kwargs["inputs_embeds"].shape[1])

    handles = [
        made.model.model.visual.register_forward_pre_hook(tower, with_kwargs=True),
        made.model.model.language_model.register_forward_pre_hook(trunk, with_kwargs=True),
    ]
    work()
    for handle in handles:
        handle.remove()
    return sum(patches), sum(tokens)


def test_a_step_runs_its_prompts_once() -> None:
    counted = {}
    for room in (10_000, 0):
        made = policy("qwen2_5_vl")
        trained, asked = learner(made, room, numerics="trl"), prompts_of(made, "qwen2_5_vl")

        def step(made: Policy = made, trained: Learner = trained, asked: object = asked) -> None:
            groups = rolled_out(made, asked)  # type: ignore[arg-type]
            trained.update(samples(trained, groups), 0.0)

        counted[room] = passes(made, step)
    trained_prompts = [asked[0], asked[2]]
    images = [m for p in trained_prompts for m in p.media]
    assert counted[0][0] - counted[10_000][0] == sum(len(m.tensors["pixel_values"]) for m in images)
    assert counted[0][1] - counted[10_000][1] == sum(len(p.ids) for p in trained_prompts)


def test_no_more_is_kept_than_there_is_room_for() -> None:
    made = policy("qwen2_5_vl")
    asked = prompts_of(made, "qwen2_5_vl")
    sizes = [len(prompt.ids) for prompt in asked]
    learner(made, sizes[0] + 1)
    rolled_out(made, asked)
    assert [ran.num_tokens for ran in made.kept._ran] == [sizes[0]]
    assert made.kept.left == 1


NOTHING: dict[str, dict[str, object]] = {
    "two passes": {"algorithm": {"name": "grpo", "updates": {"passes": 2}}},
    "two mini-batches": {"algorithm": {"name": "grpo", "updates": {"mini_batches": 2}}},
    "whole groups": {"algorithm": {"name": "gvpo"}},
    "another engine": {"rollout": {"engine": "hf_copy"}},
    "rollouts ahead": {"rollout": {"engine": "hf_copy", "max_staleness": 1}},
    "dropout": {"model": {"path": "m", "lora": {"rank": 4, "dropout": 0.1}}},
    "none asked for": {"trainer": {"steps": 1, "kept_prompt_tokens": 0}},
}


def room(changes: dict[str, dict[str, object]]) -> int:
    made = {
        "run": "out",
        "model": {"path": "m"},
        "data": {"task": "digit_count", "path": "a.jsonl"},
        "algorithm": {"name": "grpo"},
        "trainer": {"steps": 1},
        **changes,
    }
    config = RunConfig.model_validate(made)
    return kept_tokens(config, compose(config.algorithm), 1000)


@pytest.mark.parametrize("which", NOTHING)
def test_nothing_is_kept_where_the_update_is_another_computation(which: str) -> None:
    assert room(NOTHING[which]) == 0  # type: ignore[arg-type]


def test_half_a_micro_batch_is_kept_or_what_is_asked_for() -> None:
    assert room({}) == 500
    assert room({"trainer": {"steps": 1, "kept_prompt_tokens": 77}}) == 77


def test_what_is_not_trained_on_is_not_kept() -> None:
    made = policy("qwen2_5_vl")
    learner(made, 10_000)
    rolled_out(made, prompts_of(made, "qwen2_5_vl"), replace(SAMPLED, to_train=False))
    assert not made.kept._ran


def test_prompts_of_moved_weights_are_refused() -> None:
    """Autograd itself says that the graph is not of these weights: nothing is trained wrongly."""
    made = policy("qwen2_5_vl")
    trained = learner(made, 10_000)
    groups = rolled_out(made, prompts_of(made, "qwen2_5_vl"))
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.mul_(1.01)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        trained.update(samples(trained, groups), 0.0)


def test_in_bfloat16_what_is_kept_is_as_near_float32() -> None:
    from tests.families.cases import retyped

    made = {room: policy("qwen2_5_vl") for room in (10_000, 0)}
    exact = policy("qwen2_5_vl")
    retyped(exact.model, torch.bfloat16).float()
    groups = rolled_out(exact, prompts_of(exact, "qwen2_5_vl"), replace(SAMPLED, to_train=False))
    trained = learner(exact, 0)
    trained.update(samples(trained, groups), 0.0)
    errors = {}
    for room, each in made.items():
        retyped(each.model, torch.bfloat16)
        own = learner(each, room)
        rolled_out(each, prompts_of(each, "qwen2_5_vl"))
        own.update(samples(own, groups), 0.0)
        errors[room] = float(
            torch.cat(
                [
                    (p.grad.float() - q.grad).flatten()
                    for p, q in zip(each.model.parameters(), exact.model.parameters(), strict=True)
                    if p.grad is not None and q.grad is not None
                ]
            ).norm()
        )
    assert errors[10_000] < 1.1 * errors[0]
