"""What a policy is taught of its own answers: verdicts, their weight, their gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrl.algorithms.rl_v import Params, build
from mmrl.algorithms.stages.verification import verification
from mmrl.stage import Context
from mmrl.train.losses import policy_loss, token_batch, token_weights
from mmrl.types import Group, Prompt, Response, Sample, Text
from tests.algorithms.cases import context, group

NOTHING = np.zeros(0, dtype=np.int64)


def writing(known: dict[str, str]) -> Context:
    """A context that notes what was asked with which verdict, in tokens of one character."""

    def write(sample: Sample, text: str) -> tuple[Prompt, Response] | None:
        last = sample.parts[-1]
        assert isinstance(last, Text)
        if "too long" in last.text:
            return None
        known[last.text] = text
        prompt = Prompt(sample, (), NOTHING, NOTHING[None], 0, (), "unit")
        return prompt, Response(np.arange(len(text)), np.full(len(text), np.nan), text, "stop")

    return replace(context(), write=write)


def answered(texts: list[str], rewards: list[float | None]) -> Group:
    made = group(rewards)
    responses = [replace(r, text=t) for r, t in zip(made.responses, texts, strict=True)]
    return replace(made, responses=tuple(responses))


def test_every_answer_with_a_verdict_is_a_question_of_its_own() -> None:
    known: dict[str, str] = {}
    groups = [answered(["four", "five", "?"], [1.0, 0.0, None]), answered(["too long"], [1.0])]
    samples = build(Params(verdict_weight=0.5)).train_samples(groups, writing(known))
    assert [said.strip().splitlines()[1] for said in known] == ["four", "five"]
    assert list(known.values()) == ["Yes", "No"]
    assert all("Answer Yes or No" in said for said in known)
    asked = samples[4:]
    assert [s.origin for s in asked] == [(0, 0), (0, 1)] and not any(s.sampled for s in asked)
    assert [s.advantages.tolist() for s in asked] == [[0.5] * 3, [0.5] * 2]
    assert len({s.group for s in samples}) == 2 + 2, "verdicts are in nobody's group"


def test_a_verdict_is_learnt_by_likelihood() -> None:
    """The gradient is that of weight x log p(verdict) / sequences, whatever its log-prob."""
    algorithm = build(Params(verdict_weight=0.5, group_size=2))
    samples = algorithm.train_samples([answered(["four", "five"], [1.0, 0.0])], writing({}))
    lengths = [len(s.response.ids) for s in samples]
    assert lengths == [1, 1, 3, 2]
    logprobs = torch.linspace(-2.0, -0.1, 7, dtype=torch.float64, requires_grad=True)
    weights = token_weights(samples, algorithm.reducer)
    policy_loss(token_batch(samples, weights, logprobs), algorithm.objective).backward()
    assert logprobs.grad is not None
    # Of four sequences; each token's log-prob counts once in that of its verdict.
    assert logprobs.grad[2:5].tolist() == pytest.approx([-0.5 / 4] * 3)
    assert logprobs.grad[5:].tolist() == pytest.approx([-0.5 / 4] * 2)


def test_the_question_stands_behind_the_samples_own_parts() -> None:
    sample = Sample("1", "t", (Text("What is 2 + 2?"),), gold="4", target="4")
    asked = verification(sample, "<answer>4</answer>", "Right?")
    assert asked.parts[0] == sample.parts[0] and asked.target is None
    last = asked.parts[-1]
    assert isinstance(last, Text) and last.text.endswith("<answer>4</answer>\n\nRight?")
