"""One phase of a run from its first step to its last, every step recorded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmrl.errors import TrainingError
from mmrl.runlog.claim import Claim
from mmrl.runlog.health import Health, Wrong
from mmrl.runlog.progress import Progress
from mmrl.runlog.reward_alarms import below_greedy
from mmrl.train import checkpoint, phase_state
from mmrl.train.batches import derived_seed
from mmrl.train.checkpoint import Checkpoint
from mmrl.train.freed_memory import give_back
from mmrl.train.parts import Parts
from mmrl.train.step_record import step_metrics, write_down
from mmrl.train.stopping import Stopping, ended
from mmrl.train.trainer import StepResult

MOST_ROLLBACKS = 3
"""Of a run: what keeps going wrong is not put right by going back."""
PARITY = 0xBA12  # keeps the seeds of parity checks apart from those of rollouts


class RolledBack(Exception):
    """The run has written a checkpoint with earlier weights, to be taken up again."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


@dataclass(frozen=True)
class Session:
    """What all phases of a run share from its start to its end.

    `started` is when the run would have begun in one go.
    """

    started: float
    progress: Progress
    claim: Claim
    stopping: Stopping


class PhaseRun:
    """Carries a phase out with its parts."""

    def __init__(self, parts: Parts, session: Session) -> None:
        self._parts, self._session = parts, session
        self._setting, self._config = parts.setting, parts.setting.config
        self._last = parts.setting.place.before
        self._saved = time.monotonic()
        self._rolled_back: list[int] = []
        self._watch(0)

    def start(self, found: Checkpoint | None) -> tuple[int, float | None]:
        """Evaluate the start, or take up a checkpoint; returns the first step and `before`."""
        before = self._parts.held_out.before(first_phase=self._setting.place.phase == 0)
        alone = self._parts.models.critic_steps
        if (found.step if found else 0) - self._setting.place.before < alone:
            self._setting.say(f"the critic learns alone in {self._in_phase(alone)}")
        if found is not None:
            self._rolled_back = list(found.state().get("rolled_back", ()))
            self._watch(max(self._rolled_back, default=0))
        done = phase_state.take_up(self._parts, found)
        self._last = self._setting.place.before + done
        self._check_parity(self._last)
        return done + 1, before

    def train(self, first_step: int) -> None:
        """Carry the steps out from `first_step` of the phase on."""
        with self._session.stopping.between_steps():
            self._parts.trainer.train(first_step, self._after_step)

    def end(self) -> Checkpoint:
        """Write the phase's last checkpoint; it may have ended before its steps were used up."""
        if self._last == self._setting.place.before:
            raise TrainingError(f"phase '{self._setting.phase.name}': there was nothing to ask")
        self._save(self._last, ended=True)
        if told := self._session.stopping.told(self._setting.world):
            raise ended(told, self._last)
        return checkpoint.at(self._config.run, self._last)

    def finish(self, before: float | None) -> dict[str, Any]:
        """Evaluate the trained policy and write `result.json`."""
        after = self._parts.held_out.write("eval_after.json")
        result = {
            "before": before,
            "after": after,
            "seconds": round(self._seconds(), 1),
            "seed": self._setting.seed,
            "steps": self._last,
        }
        text = json.dumps(result, indent=1)
        if self._setting.world.first:
            (self._config.run / "result.json").write_text(text + "\n", encoding="utf-8")
        return result

    @property
    def held_out(self) -> Mapping[str, Any]:
        """The evaluation that was written last."""
        return self._parts.held_out.last

    def _after_step(self, result: StepResult) -> None:
        """Record a step, show it, and write a checkpoint or evaluate when due."""
        config, step = self._config.trainer, self._setting.place.before + result.step
        metrics = step_metrics(self._parts, result)
        self._last = step
        if self._setting.world.first:
            write_down(self._parts, step, result)
        # `finish` evaluates after the last step.
        over = self._setting.last_phase and result.step == config.steps
        if config.eval_every and step % config.eval_every == 0 and not over:
            metrics |= self._parts.held_out.metrics()
        if step == 1 or step % (self._config.rollout.parity_every or step + 1) == 0:
            metrics |= self._check_parity(step)
        if step == 1:
            self._compare_with_greedy(metrics)
        self._setting.records.metrics.write(step, metrics)
        self._parts.trackers.log(step, metrics)
        self._session.progress.step(step, metrics)
        self._session.claim.settle()
        told = self._session.stopping.told(self._setting.world)
        wrong, overdue = self._setting.world.once(lambda: (self._wrong(), self._overdue()))
        due = overdue or (config.checkpoint_every and step % config.checkpoint_every == 0)
        if (due or told or wrong) and result.step < config.steps:
            if wrong and wrong.does == "roll_back":
                self._roll_back(step, wrong.line)
            self._save(step)
            if wrong:
                raise TrainingError(f"stopped after step {step}, {wrong.line}")
            if told:
                raise ended(told, step)

    def _save(self, step: int, *, ended: bool = False) -> None:
        rolled = self._rolled_back
        phase_state.save(self._parts, step, self._seconds(), ended=ended, rolled_back=rolled)
        give_back()
        self._saved = time.monotonic()

    def _roll_back(self, step: int, line: str) -> None:
        """Give the run the weights of its last checkpoint and have it taken up from here.

        Raises RolledBack, or TrainingError where there is none in the phase, or it was done before
        as often as it may be.
        """
        found = checkpoint.latest(self._config.run)
        if found is None or found.step <= self._setting.place.before:
            raise TrainingError(f"step {step}, {line}; there is no checkpoint to go back to")
        if len(self._rolled_back) == MOST_ROLLBACKS:
            raise TrainingError(f"step {step}, {line}; it was rolled back {MOST_ROLLBACKS} times")
        self._setting.say(f"step {step}, {line}: back to the weights of step {found.step}")
        phase_state.roll_back(self._parts, found)
        self._rolled_back.append(step)
        self._save(step)
        raise RolledBack(step)

    def _watch(self, since: int) -> None:
        """Look for alarms in the rows of later steps than that."""
        actions = self._config.trainer.on_alarm
        self._health = Health(self._setting.say, actions, since=since)

    def _wrong(self) -> Wrong | None:
        """Tell of alarms; the one that something is done about."""
        rows = self._setting.records.metrics.recent
        return self._health.look(rows, self._config.rollout.max_new_tokens)

    def _overdue(self) -> bool:
        """Whether the last checkpoint is older than it may be."""
        minutes = self._config.trainer.checkpoint_minutes
        return bool(minutes) and time.monotonic() - self._saved > 60 * minutes

    def _compare_with_greedy(self, metrics: Mapping[str, float]) -> None:
        """Say early on that answers are sampled from a much flatter policy than is evaluated."""
        if self._config.rollout.engine != "targets" and self.held_out:
            line = below_greedy(self.held_out, metrics.get("metric/mean", math.nan))
            if line:
                self._setting.say(line)

    def _check_parity(self, step: int) -> dict[str, float]:
        """Compare engine and trainer; `step` 0 is the start."""
        if self._parts.parity is None:
            return {}
        return self._parts.parity.check(derived_seed(self._config.seed, step, PARITY))

    def _in_phase(self, steps: int) -> str:
        """So many first steps of the phase, in words."""
        name = self._setting.phase.name
        phase = f"of phase '{name}'" if name else "of the run"
        return f"the first {steps} of the {self._config.trainer.steps} steps {phase}"

    def _seconds(self) -> float:
        return time.monotonic() - self._session.started
