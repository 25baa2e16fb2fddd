"""DR-PO's prefixes: how long they are, who shares them, and what is sampled and read after them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.targets import Targets
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.rollout.resets import FromWithin
from mmrl.scoring.tasks import load_task
from mmrl.types import Group, Reference, Sample

GOLD = "I count four digits in this row. <answer>4</answer>"
SAMPLING = Sampling(6)


def within(policy: Policy, share: float = 1.0) -> FromWithin:
    task = load_task("custom", {"function": []})
    return FromWithin(Targets(policy, {"test": task}), policy.processor.tokenizer, share)


@pytest.fixture
def groups(policy: Policy, encoder: Encoder, ask: Callable[..., Sample]) -> list[Group]:
    samples = [
        replace(ask((56, 56, i), "How many digits?", id=str(i)), reference=Reference(GOLD))
        for i in range(6)
    ]
    prompts = [encoder.prompt(sample) for sample in samples]
    engine = HFEngine(policy, 64, 4096)
    made = within(policy).sample(engine, prompts, [2] * 6, replace(SAMPLING, max_new_tokens=64), 3)
    for prompt, group in zip(prompts, made, strict=True):
        assert group.prompt.ids[: len(prompt.ids)].tolist() == prompt.ids.tolist()
    return made


def test_answers_go_on_from_a_prefix_of_the_target(
    policy: Policy, groups: list[Group], encoder: Encoder
) -> None:
    tokenizer = policy.processor.tokenizer
    whole = tokenizer(GOLD, add_special_tokens=False)["input_ids"]
    lengths = []
    for group in groups:
        plain = len(encoder.prompt(group.prompt.sample).ids)
        head = group.prompt.ids[plain:].tolist()
        assert head == whole[: len(head)]  # never the end of the answer
        lengths.append(len(head))
        for response in group.responses:
            own = response.ids[:-1] if response.finish == "stop" else response.ids
            assert response.text == tokenizer.decode(head) + tokenizer.decode(own)
            assert np.isfinite(response.logprobs).all()
    assert len(set(lengths)) > 2 and max(lengths) <= len(whole)


def test_no_share_is_no_prefix(
    policy: Policy, encoder: Encoder, ask: Callable[..., Sample]
) -> None:
    prompt = encoder.prompt(ask((56, 56, 0), "How many digits?"))
    engine = HFEngine(policy, 64, 4096)
    (group,) = within(policy, 0.0).sample(engine, [prompt], [2], SAMPLING, 3)
    assert group.prompt.ids.tolist() == prompt.ids.tolist()
    plain = engine.generate([prompt], [2], SAMPLING, 3)[0]
    assert [r.ids.tolist() for r in group.responses] == [r.ids.tolist() for r in plain]
