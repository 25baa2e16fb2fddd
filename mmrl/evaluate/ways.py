"""Ways of asking one record: answers that begin with a given text, thinking cut at budgets.

    leads:   {direct: <ANSWER>, long: <LONG_COT>}   an answer in each format, by its beginning
    budgets: [500, 1000, 2000]                      an answer after so many tokens of thinking

Every record is answered in every way, so that a number is known by format or by budget. Thoughts
are written once and cut at each of the budgets, as in training (`rollout/thinking.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from mmrl.algorithm import Cuts
from mmrl.engines.engine import Engine, Sampling
from mmrl.errors import UserError
from mmrl.policy.appending import continued
from mmrl.policy.family import Family
from mmrl.policy.weights import Weights
from mmrl.rollout.episode import SEEDS_OF_A_TURN
from mmrl.rollout.thinking import Thinking
from mmrl.types import Group, Ints, Prompt, Response
from mmrl.validation import Section


class WaysConfig(Section):
    leads: Mapping[str, str] = Field(
        default_factory=dict, description="by name, the text that an answer begins with"
    )
    budgets: tuple[int, ...] = Field(
        (), description="tokens of thinking after which an answer is asked for; they grow"
    )
    marker: str = Field("</think>", min_length=1, description="what ends thinking")
    closing: str = Field("\n</think>\n", description="what is written where thinking is cut")
    consensus: str | None = Field(
        None, description="the lead that is taken where the answers of all others are not the same"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> WaysConfig:
        if any(b <= 0 for b in self.budgets) or sorted(set(self.budgets)) != list(self.budgets):
            raise ValueError("budgets are numbers of tokens that grow")
        if self.consensus is not None and self.consensus not in self.leads:
            raise ValueError(f"consensus: '{self.consensus}' is none of the leads")
        if self.consensus is not None and len(self.leads) < 3:
            raise ValueError("consensus needs at least two leads besides its own")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The ways in their order; none where records are asked as they are."""
        return (*self.leads, *(f"{budget} tokens" for budget in self.budgets))


class InWays:
    """An engine that answers every prompt in every way, with another engine, way by way.

    Of prompt i it makes counts[i] responses, which the ways divide among them. Raises UserError for
    an episode, which has no single answer to begin or to cut.
    """

    def __init__(self, engine: Engine, ways: WaysConfig, family: Family, tokenizer: Any) -> None:
        self._engine, self._ways = engine, ways
        self._family, self._tokenizer = family, tokenizer

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """The responses of the first way to each prompt, then those of the second, and so on."""
        if any(prompt.sample.start is not None for prompt in prompts):
            raise UserError("ways are for tasks of one answer: an episode is asked as it is")
        each = [count // len(self._ways.names) for count in counts]
        found: list[list[Response]] = [[] for _ in prompts]
        for number, lead in enumerate(self._ways.leads.values()):
            made = self._led(prompts, each, lead, sampling, seed + number * SEEDS_OF_A_TURN)
            for have, more in zip(found, made, strict=True):
                have += more
        if self._ways.budgets:
            number = len(self._ways.leads)
            made = self._cut(prompts, each, sampling, seed + number * SEEDS_OF_A_TURN)
            for have, more in zip(found, made, strict=True):
                have += more
        return found

    def sync(self, weights: Weights) -> None:
        """Let the engine take over the weights."""
        self._engine.sync(weights)

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()

    def _led(
        self,
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        lead: str,
        sampling: Sampling,
        seed: int,
    ) -> list[list[Response]]:
        tokens = self._tokenizer(lead, add_special_tokens=False)["input_ids"]
        ids = np.array(tokens, dtype=np.int64)
        begun = [continued(prompt, ids) for prompt in prompts]
        made = self._engine.generate(begun, counts, sampling, seed)
        return [[_behind(ids, lead, response) for response in group] for group in made]

    def _cut(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        cuts = Cuts(self._ways.budgets, 1, self._ways.marker, self._ways.closing)
        thinking = Thinking(cuts, self._family, self._tokenizer)
        groups = iter(thinking.sample(self._engine, prompts, counts, sampling, seed))
        return [_by_budget(prompt, groups, len(self._ways.budgets)) for prompt in prompts]


def _by_budget(prompt: Prompt, groups: Iterator[Group], budgets: int) -> list[Response]:
    """The answers at the first budget, one a chain, then those at the second, and so on.

    `groups` goes on with the prompt's chains and their answers; budgets that a chain does not reach
    share the answer at its end.
    """
    chains = next(groups)
    assert chains.extra.cuts is not None, "a group of chains stands before its answers"
    rows = []
    for places in chains.extra.cuts:
        at = {place: _whole(prompt, next(groups)) for place in dict.fromkeys(places)}
        rows.append([at[place] for place in places])
    return [row[budget] for budget in range(budgets) for row in rows]


def _whole(prompt: Prompt, group: Group) -> Response:
    """The thought, what was written at its cut, and the answer as one response."""
    (answer,) = group.responses
    # `Thinking` has put the thought in front of the answer's text already.
    return _behind(group.prompt.ids[len(prompt.ids) :], "", answer)


def _behind(ids: Ints, text: str, response: Response) -> Response:
    """The response with tokens [T] in front that nobody sampled: their log-probs are NaN."""
    return replace(
        response,
        ids=np.concatenate([ids, response.ids]),
        logprobs=np.concatenate([np.full(len(ids), np.nan), response.logprobs]),
        text=text + response.text,
    )
