"""Answers that begin within the record's own: a part of it is the end of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmrl.engines.engine import Engine, Sampling
from mmrl.policy.appending import continued
from mmrl.types import Group, Prompt, Response

DRAW = 0xD4  # keeps its random numbers apart from those of sampling


@dataclass(frozen=True)
class FromWithin:
    """Rolls out from a random prefix of what `targets` writes, for a `share` of the prompts.

    The prefix is drawn evenly from nothing to all but the target's last token, and all answers to a
    prompt share it; they have `max_new_tokens` besides. A verifier reads both as one text. What is
    played in turns begins at its beginning.
    """

    targets: Engine
    tokenizer: Any
    share: float = 1.0

    def sample(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        sampling: Sampling,
        seed: int,
    ) -> list[Group]:
        """Groups of counts[i] responses to prompt i with its prefix."""
        rng = np.random.default_rng([seed, DRAW])
        heads = [self._head(prompt, sampling, rng, seed) for prompt in prompts]
        begun = [continued(prompt, ids) for prompt, (ids, _) in zip(prompts, heads, strict=True)]
        made = engine.generate(begun, counts, sampling, seed)
        return [
            Group(prompt, tuple(_after(head, response) for response in responses), ())
            for prompt, (_, head), responses in zip(begun, heads, made, strict=True)
        ]

    def _head(
        self, prompt: Prompt, sampling: Sampling, rng: np.random.Generator, seed: int
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], str]:
        """The tokens of a prompt's prefix, and its text."""
        chosen, where = rng.random(2)
        nothing = np.zeros(0, dtype=np.int64)
        if chosen >= self.share or prompt.sample.start is not None:
            return nothing, ""
        plain = replace(sampling, greedy_too=False)
        ((target,),) = self.targets.generate([prompt], [1], plain, seed)
        ids = target.ids[: int(where * len(target.ids))]
        return ids, self.tokenizer.decode(ids, skip_special_tokens=False)


def _after(head: str, response: Response) -> Response:
    return replace(response, text=head + response.text)
