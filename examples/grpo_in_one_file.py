"""GRPO in one file, on the public parts of mmrl: what `mmrl train` does, with nothing around it.

    python examples/grpo_in_one_file.py --steps 100

It counts handwritten digits with the tiny Qwen2.5-VL of the quickstart; its numbers are the
trainer's (tests/docs/test_examples.py). What the trainer adds: checkpoints and exact resume,
scoring in processes that may be killed, quarantine, micro-batches, other engines, many GPUs, and a
report.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import mmrl
from mmrl import plugins
from mmrl.data.samples import load_samples
from mmrl.data.stream import PromptStream
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.attention import active_layout
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.task import Task
from mmrl.train.batches import derived_seed
from mmrl.types import Answer, Floats, Prompt, Response


@dataclass(frozen=True)
class Settings:
    """What the run is made of; the defaults are the quickstart's."""

    model: str = "asset:tiny_qwen2_5_vl"
    task: str = "digit_count"
    data: Path = Path("data/digits")
    steps: int = 100
    prompts_per_step: int = 16
    group_size: int = 8
    max_new_tokens: int = 8
    learning_rate: float = 4e-4
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """What one step did."""

    reward: float
    loss: float
    grad_norm: float


def reward(task: Task, prompt: Prompt, response: Response) -> float:
    """The task's own score of a response, its parts added up by their weights."""
    answer = Answer(response.text, response.truncated, prompt.frames, prompt.space)
    parts = task.score(prompt.sample.gold, answer).parts
    return sum(task.parts[name].weight * value for name, value in parts.items())


def group_advantages(rewards: Floats) -> Floats:
    """Rewards [prompts, G] minus their group's mean, over its standard deviation."""
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return centred / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-6)


def grpo_loss(
    policy: Policy, prompts: list[Prompt], groups: list[list[Response]], advantages: Floats
) -> torch.Tensor:
    """The GRPO loss of one on-policy update: a mean over responses of means over their tokens.

    All responses of a prompt stand in one row with it, so prompt and picture are computed once;
    the backward pass must run while the layout is active.
    """
    rows = [
        SharedRow(prompt, tuple(response.ids for response in group))
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    lengths = np.array([len(response.ids) for group in groups for response in group])
    weights = np.repeat(advantages.ravel() / (len(lengths) * lengths), lengths)
    layout = lay_out(rows, policy.device)
    with active_layout(layout):
        logprobs, _ = policy.logprobs(layout, prompts, temperature=1.0)
        # On-policy the ratio is 1, and has the gradient of the log-prob.
        ratio = (logprobs - logprobs.detach()).exp()
        loss = -(torch.from_numpy(weights).to(ratio) * ratio).sum()
        loss.backward()
    return loss.detach()


def train(settings: Settings) -> Iterator[Step]:
    """Yield what each step did: draw, roll out, score, credit, update."""
    task, policy = mmrl.load_task(settings.task), mmrl.load_policy(settings.model)
    path = settings.data / settings.task / "train.jsonl"
    if not path.is_file():
        plugins.load("recipe", "digits").build(None, settings.data)
    samples = load_samples(task, path, settings.task, reject=print)
    stream = PromptStream([(samples, 1.0, True)], settings.seed)
    encoder, engine = Encoder(policy.family), HFEngine(policy)
    optimizer = torch.optim.AdamW(
        policy.model.parameters(), settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    for step in range(1, settings.steps + 1):
        prompts = [encoder.prompt(s) for s in stream.draw(settings.prompts_per_step)]
        counts = [settings.group_size] * len(prompts)
        sampling, seed = Sampling(settings.max_new_tokens), derived_seed(settings.seed, step, 0)
        groups = engine.generate(prompts, counts, sampling, seed)
        rewards = np.array(
            [[reward(task, p, r) for r in group] for p, group in zip(prompts, groups, strict=True)]
        )
        loss = grpo_loss(policy, prompts, groups, group_advantages(rewards))
        norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield Step(float(rewards.mean()), float(loss), float(norm))
    encoder.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    for number, done in enumerate(train(Settings(steps=parser.parse_args().steps)), start=1):
        print(f"step {number}: reward {done.reward:.3f}, gradient norm {done.grad_norm:.3f}")
