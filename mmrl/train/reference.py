"""The reference policy: one model or several, which may follow the policy that learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmrl.errors import ConfigError, TrainingError
from mmrl.policy.encoder import Encoder
from mmrl.policy.family import Family
from mmrl.policy.policy import Policy
from mmrl.types import Floats, Prompt, TrainSample

Score = Callable[[Sequence[TrainSample], Policy], Sequence[Floats]]
"""Log-probs [T] of every sample's response by a policy."""


@dataclass(frozen=True)
class Teacher:
    """A frozen model with its share; `encoder` makes its prompts where it sees media otherwise."""

    policy: Policy
    weight: float = 1.0
    encoder: Encoder | None = None


class ReferencePolicy:
    """Models whose weighted mean log-probs stand for the reference.

    `average`: so much of it stays, the rest is the policy's; `every`: that is done after so many
    steps, without `average` it becomes the policy then. An average is kept in float32.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        *,
        average: float | None = None,
        every: int | None = None,
        rank: int = 0,
    ) -> None:
        assert len(teachers) == 1 or not (average or every), "several models do not follow one"
        self._teachers, self._rank = tuple(teachers), rank
        self._average, self._every = average, every
        self._exact: dict[str, Tensor] = {}
        if average is not None:
            weights = teachers[0].policy.model.named_parameters()
            self._exact = {name: p.detach().float().clone() for name, p in weights}

    def with_features_of(self, policy: Policy) -> ReferencePolicy:
        """Let models that see with the policy's own frozen towers take what it has seen.

        Weights must not be sharded: they are compared.
        """
        self._teachers = tuple(
            replace(each, policy=replace(each.policy, store=policy.store))
            if each.encoder is None and _sees_alike(each.policy.family, policy.family)
            else each
            for each in self._teachers
        )
        return self

    @property
    def moves(self) -> bool:
        """True if it follows the policy."""
        return self._average is not None or self._every is not None

    def only(self) -> Policy:
        """The one model that it is."""
        (teacher,) = self._teachers
        return teacher.policy

    def logprobs(self, samples: Sequence[TrainSample], score: Score) -> list[Floats]:
        """Mean log-probs [T] of every sample's response, weighted by the teachers' shares."""
        total = sum(teacher.weight for teacher in self._teachers)
        found: list[Floats] = []
        for teacher in self._teachers:
            values = score(self._as_seen(samples, teacher), teacher.policy)
            shares = [teacher.weight / total * value for value in values]
            found = [a + b for a, b in zip(found, shares, strict=True)] if found else shares
        return found

    @torch.no_grad()
    def follow(self, policy: Policy, step: int) -> None:
        """Move towards the policy, as it is after `step` of the phase."""
        if self._every is not None and step % self._every:
            return
        if not self.moves:
            return
        (teacher,) = self._teachers
        there = dict(policy.model.named_parameters())
        for name, own in teacher.policy.model.named_parameters():
            if self._average is not None:
                mean = self._exact[name]
                mean.lerp_(there[name].detach().float(), 1 - self._average)
                own.copy_(mean)
            else:
                own.copy_(there[name])
        teacher.policy.store.forget()

    def state(self) -> dict[str, Tensor]:
        """The weights of one that moves, in their shapes, for a checkpoint; none if it stays."""
        if not self.moves:
            return {}
        named = self._teachers[0].policy.model.named_parameters()
        # A copy: tied weights would share their memory.
        return {n: self._exact.get(n, p.detach()).clone() for n, p in named}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the `state` of a checkpoint, in the weights' shapes."""
        (teacher,) = self._teachers
        for name, own in teacher.policy.model.named_parameters():
            own.copy_(tensors[name])
            if name in self._exact:
                self._exact[name].copy_(tensors[name])
        teacher.policy.store.forget()

    def close(self) -> None:
        """Stop the teachers' decoding."""
        for teacher in self._teachers:
            if teacher.encoder is not None:
                teacher.encoder.close()

    def _as_seen(self, samples: Sequence[TrainSample], teacher: Teacher) -> Sequence[TrainSample]:
        """The samples under the prompts that a teacher sees; others' media are not here."""
        encoder = teacher.encoder
        if encoder is None:
            return samples
        if any(sample.response.observed is not None for sample in samples):
            raise TrainingError(
                "a teacher with pixel budgets of its own takes no episodes that show media"
            )
        prompts: dict[int, Prompt] = {}
        for prompt in (sample.prompt for sample in samples):
            if id(prompt) not in prompts:
                here = prompt.home == self._rank
                seen = encoder.prompt(prompt.sample) if here else prompt
                prompts[id(prompt)] = replace(seen, home=prompt.home)
        return [replace(sample, prompt=prompts[id(sample.prompt)]) for sample in samples]


def _sees_alike(other: Family, own: Family) -> bool:
    """Whether both make the same features of a medium, for as long as they learn."""
    behind = [
        [*family.tower_parameters(), *family.projector_parameters()] for family in (other, own)
    ]
    if any(p.requires_grad for p in behind[1]) or len(behind[0]) != len(behind[1]):
        return False
    return all(
        a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(*behind, strict=True)
    )


@torch.no_grad()
def average_weights(policy: Policy, others: Sequence[Policy]) -> None:
    """Let a policy have the mean of its weights and those of others, computed in float32."""
    named = [dict(other.model.named_parameters()) for other in others]
    for name, own in policy.model.named_parameters():
        total = own.float()
        for other in named:
            total = total + other[name].float()
        own.copy_(total / (1 + len(others)))


def refuse_other_tokens(policy: Policy, other: Policy, path: str) -> None:
    """Raise ConfigError where a model does not read and write the policy's tokens."""
    own, theirs = (p.processor.tokenizer.get_vocab() for p in (policy, other))
    if own != theirs:
        raise ConfigError(f"reference: {path} has other tokens than the model that learns")
