"""KL coefficients that change during the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from mmrl import plugins
from mmrl.objective import Schedule
from mmrl.stage import Context


@dataclass(frozen=True)
class FallThenRise(Schedule):
    """GRPO-D: from the middle of [low, high] down to `low` at a share of the run, then to `high`.

    OThink-MR1, arXiv 2503.16081. Its prose says that the weight starts small and grows; its
    formula, which this follows, starts in the middle and falls first.
    """

    low: Annotated[float, Field(ge=0)] = 0.04
    high: Annotated[float, Field(ge=0)] = 0.1
    turn: Annotated[float, Field(gt=0, lt=1)] = 0.3

    def at(self, context: Context) -> float:
        return self.value(context.step - 1, max(context.total_steps - 1, 1))

    def value(self, step: float, total: float) -> float:
        """Return the coefficient after `step` of `total` steps."""
        middle, turn = (self.low + self.high) / 2, self.turn * total
        if step <= turn:
            return middle + (self.low - middle) * step / turn
        return self.low + (self.high - self.low) * (step - turn) / (total - turn)

    def observe(self, kl: float, responses: int, context: Context) -> None:
        """Nothing depends on the measured KL."""


@dataclass(frozen=True)
class Adaptive(Schedule):
    """Proportional controller towards a target KL. Ziegler et al., arXiv 1909.08593."""

    initial: Annotated[float, Field(gt=0)] = 0.04
    target: Annotated[float, Field(gt=0)] = 0.1
    horizon: Annotated[float, Field(gt=0)] = 10_000.0
    bound: Annotated[float, Field(gt=0)] = 0.2

    def at(self, context: Context) -> float:
        return float(context.state.get("kl_coefficient", self.initial))

    def observe(self, kl: float, responses: int, context: Context) -> None:
        error = min(max(kl / self.target - 1, -self.bound), self.bound)
        context.state["kl_coefficient"] = self.at(context) * (1 + error * responses / self.horizon)


SCHEDULES: Mapping[str, Schedule] = plugins.Named(
    "mmrl.schedules", {"grpo_d": FallThenRise(), "adaptive": Adaptive()}, Schedule
)
"""Schedules by the name a config uses."""
