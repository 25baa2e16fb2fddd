"""How far vLLM is from the trainer, by media: before, and after three changes of all weights."""

from __future__ import annotations

import numpy as np

from mmrl.types import Prompt, Response
from tests.engines.pair import GREEDY, SAMPLED, Pair, move, teacher_forced

CHANGES = 3
ANSWERS = 2


def measure(pair: Pair) -> dict[str, float]:
    """The largest gap of log-probs, in nats, over greedy and sampled answers to each prompt.

    Infinite where a greedy answer is another one than the embedded engine's.
    """
    gaps = dict.fromkeys(pair.prompts, 0.0)
    for change in range(CHANGES + 1):
        if change:
            move(list(pair.policy.model.parameters()), seed=change)
            pair.sync(change)
        for label, gap in _gaps(pair, list(pair.prompts.values())).items():
            gaps[label] = max(gaps[label], gap)
    return gaps


def _gaps(pair: Pair, prompts: list[Prompt]) -> dict[str, float]:
    once = [1] * len(prompts)
    wanted = pair.hf.generate(prompts, once, GREEDY, 0)
    found = pair.vllm.generate(prompts, once, GREEDY, 0)
    drawn = pair.vllm.generate(prompts, [ANSWERS] * len(prompts), SAMPLED, 7)
    gaps: dict[str, float] = {}
    for i, (label, prompt) in enumerate(pair.prompts.items()):
        same = found[i][0].ids.tolist() == wanted[i][0].ids.tolist()
        greedy = _gap(pair, prompt, found[i], 1.0) if same else np.inf
        gaps[label] = max(greedy, _gap(pair, prompt, drawn[i], SAMPLED.temperature))
    return gaps


def _gap(pair: Pair, prompt: Prompt, answers: list[Response], heat: float) -> float:
    trained = teacher_forced(pair.policy, prompt, answers, heat)
    return float(np.abs(np.concatenate([a.logprobs for a in answers]) - trained).max())
