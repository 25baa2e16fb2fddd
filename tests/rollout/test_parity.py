"""The gate opens for an engine that samples what the trainer trains, and for no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Engine, Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.parity import Gaps, Parity, by_modality, parity_limit, probes, table
from mmrl.errors import UserError
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Floats, Group, MediaRef, Prompt, Sample, Text, TrainSample
from tests.conftest import noise_image

Asker = Callable[..., Sample]
LIMIT = parity_limit("float32")


def trainer_of(policy: Policy) -> Callable[[Sequence[TrainSample]], list[Floats]]:
    @torch.no_grad()
    def score(samples: Sequence[TrainSample]) -> list[Floats]:
        found = []
        for sample in samples:
            layout = lay_out([SharedRow(sample.prompt, (sample.response.ids,))], policy.device)
            with active_layout(layout):
                values, _ = policy.logprobs(layout, [sample.prompt], 1.3)
            found.append(values.double().numpy())
        return found

    return score


@pytest.fixture
def prompts(encoder: Encoder, ask: Asker) -> list[Prompt]:
    return [
        encoder.prompt(ask("No picture at all.", id="none")),
        encoder.prompt(ask("How many digits?", (112, 112, 0), id="one")),
    ]


def gate(policy: Policy, engine: Engine, prompts: Sequence[Prompt], limit: float) -> Parity:
    return Parity(engine, trainer_of(policy), prompts, Sampling(12, temperature=1.3), limit)


def test_same_weights_pass_with_metrics_by_modality(policy: Policy, prompts: list[Prompt]) -> None:
    metrics = gate(policy, HFEngine(policy), prompts, LIMIT).check(seed=1)
    assert metrics.keys() == {
        f"parity/{kind}/{name}" for kind in ("text", "image") for name in ("mean", "p99", "max")
    }
    assert 0 <= metrics["parity/image/mean"] <= metrics["parity/image/max"] < LIMIT


def test_a_stale_tower_stops_the_run_and_shows_where(policy: Policy, prompts: list[Prompt]) -> None:
    """The engine samples with the old tower: only prompts with a picture differ."""
    stale = policy.frozen_copy()
    with torch.no_grad():
        for parameter in policy.family.tower_parameters():
            parameter.add_(0.3 * parameter.std(correction=0))
    with pytest.raises(UserError, match=r"rollout.parity_limit=0.001") as stopped:
        gate(policy, HFEngine(stale), prompts, LIMIT).check(seed=1)
    rows = {line.split()[0]: line.split()[1:] for line in str(stopped.value).splitlines()[2:]}
    assert float(rows["text"][1]) < LIMIT < float(rows["image"][1])


def test_a_log_prob_that_is_no_number_stops_the_run(policy: Policy, prompts: list[Prompt]) -> None:
    class Blank(HFEngine):
        def generate(self, *args: object) -> object:  # type: ignore[override]
            return [
                [dataclasses.replace(r, logprobs=r.logprobs * np.nan) for r in group]
                for group in super().generate(*args)  # type: ignore[arg-type]
            ]

    with pytest.raises(UserError, match="parity_limit"):
        gate(policy, Blank(policy), prompts, LIMIT).check(seed=1)


def test_gaps_by_hand(policy: Policy, prompts: list[Prompt]) -> None:
    """101 gaps of 0.00 to 1.00: mean 0.5, p99 0.99, largest 1."""
    (response,) = HFEngine(policy).generate(prompts[:1], [1], Sampling(1), 0)[0]
    made = dataclasses.replace(
        response, ids=np.zeros(101, dtype=np.int64), logprobs=-np.arange(101) / 100
    )
    gaps = by_modality([Group(prompts[0], (made,), ())], lambda s: [np.zeros(101) for _ in s])
    assert gaps.keys() == {"text"}
    assert dataclasses.astuple(gaps["text"]) == pytest.approx((101, 0.5, 0.99, 1.0))
    assert table({"text": Gaps(101, 0.5, 0.99, 1.0)}).splitlines()[1].split() == [
        "text", "101", "5.00e-01", "9.90e-01", "1.00e+00",
    ]  # fmt: skip


def test_one_probe_for_every_way_media_occur(encoder: Encoder, tmp_path: Path) -> None:
    def sample(name: str, *media: MediaRef) -> Sample:
        return Sample(name, "test", (Text("What?"), *media), gold=None)

    broken = MediaRef("image", tmp_path / "absent.png")
    samples = [
        sample("broken", broken),
        sample("one", noise_image(60, 60, 1)),
        sample("another", noise_image(60, 60, 2)),
        sample("none"),
        sample("two", noise_image(60, 60, 3), noise_image(60, 60, 4)),
        sample("three", *(noise_image(60, 60, seed) for seed in (5, 6, 7))),
    ]
    assert [p.sample.id for p in probes(samples, encoder)] == ["one", "none", "two"]
