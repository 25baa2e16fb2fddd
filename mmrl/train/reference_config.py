"""What the policy is held to, or taught by: the section `reference` of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from mmrl.algorithm import Follows
from mmrl.data_config import OWN_PHASE
from mmrl.validation import Section, validate

START = "start"
"""In place of a phase's name: the model that the run began with."""


class TeacherConfig(Section):
    path: str = Field(
        description="model folder or checkpoint with the policy's tokens; phase:NAME and "
        "phase:start as for reference.path"
    )
    weight: float = Field(
        1.0, description="its share in the mean of log-probs; below 0 it is taken off (see rto)"
    )
    min_pixels: int | None = Field(None, gt=0, description="its own lower budget of an image")
    max_pixels: int | None = Field(None, gt=0, description="its own upper budget of an image")

    @property
    def sees_otherwise(self) -> bool:
        """True if it has pixel budgets of its own."""
        return self.min_pixels is not None or self.max_pixels is not None


class ReferenceConfig(Section):
    """Of algorithms that compare with a reference; without it, the policy's start is theirs."""

    path: str | None = Field(
        None,
        description="model folder or checkpoint that it is; phase:NAME is what an earlier phase of "
        "the run ended with, phase:start model.path",
    )
    mean_of: tuple[str, ...] = Field((), description="several of them, whose weights are averaged")
    teachers: tuple[TeacherConfig, ...] = Field(
        (), description="models whose mean log-probs take its place; see docs/teachers.md"
    )
    average: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="it follows the policy: so much of it stays in every step, such as 0.99, or "
        "after `every` so many",
    )
    every: int | None = Field(
        None, gt=0, description="it becomes the policy after every so many steps"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> ReferenceConfig:
        given = [name for name in ("path", "mean_of", "teachers") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say what it is: keep one")
        if self.teachers and sum(teacher.weight for teacher in self.teachers) <= 0:
            raise ValueError("the weights of teachers add up to more than 0")
        if self.moves and self.teachers:
            raise ValueError("teachers stay as they are: leave average and every out")
        return self

    @property
    def moves(self) -> bool:
        """True if it follows the policy."""
        return self.average is not None or self.every is not None

    @property
    def phases(self) -> list[str]:
        """The phases of the run that it is made of."""
        paths = [self.path or "", *self.mean_of, *(teacher.path for teacher in self.teachers)]
        return [path.removeprefix(OWN_PHASE) for path in paths if path.startswith(OWN_PHASE)]

    @property
    def is_start(self) -> bool:
        """True if it begins as the policy does."""
        return not (self.path or self.mean_of or self.teachers)


def reference_of(values: Mapping[str, Any]) -> ReferenceConfig:
    """Read the section; raises ConfigError for what does not go together."""
    return validate(ReferenceConfig, dict(values), "reference")


def following(config: ReferenceConfig, follows: Follows | None) -> ReferenceConfig:
    """The section with an algorithm's own way to follow the policy, where the run says none.

    Teachers stay as they are.
    """
    if follows is None or config.moves or config.teachers:
        return config
    return config.model_copy(update={"every": follows.every, "average": follows.average or None})
