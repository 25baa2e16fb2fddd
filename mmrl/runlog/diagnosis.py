"""Plain-language lines about a run that is going wrong, from the rows of `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from mmrl.alarm import ALARMS, Alarm
from mmrl.runlog import answer_alarms, reward_alarms, update_alarms
from mmrl.runlog.rows import Row, recent

Check = Callable[[Sequence[Row]], str | None]

WHOLE: Mapping[Alarm, Check] = MappingProxyType(
    {"blind": answer_alarms.blind, "not_a_number": update_alarms.not_a_number}
)
"""Checks over all rows, by the name of their alarm."""

PHASE: Mapping[Alarm, Check] = MappingProxyType(
    {
        "skipped": update_alarms.skipped,
        "unscorable": answer_alarms.unscorable,
        "unparsable": answer_alarms.unparsable,
        "thoughtless": answer_alarms.thoughtless,
        "equal": reward_alarms.equal,
        "hacked": reward_alarms.hacked,
        "collapsed": reward_alarms.collapsed,
        "spiked": update_alarms.spiked,
        "certain": update_alarms.certain,
        "drifted": update_alarms.drifted,
        "longer": answer_alarms.longer,
        "flat": reward_alarms.flat,
        "leaking": update_alarms.leaking,
    }
)
"""Checks over the rows of the last phase: another one may ask and pay otherwise."""


def diagnose(
    rows: Sequence[Row], *, max_new_tokens: int | None = None, held_out: Row | None = None
) -> list[str]:
    """Say what is wrong and what to do, one line each; no line: nothing was found.

    `rows` are in step order; a missing, null or NaN value says nothing. `held_out` is the last
    evaluation, whose answers were greedy, as in `eval_after.json`.
    """
    return list(alarms(rows, max_new_tokens=max_new_tokens, held_out=held_out).values())


def alarms(
    rows: Sequence[Row], *, max_new_tokens: int | None = None, held_out: Row | None = None
) -> dict[Alarm, str]:
    """The lines of `diagnose` by the names of their alarms (`mmrl.alarm`), worst first."""
    present = [row for row in rows if row.get("phase") == rows[-1].get("phase")]
    found: dict[Alarm, str | None] = {
        **{name: check(rows) for name, check in WHOLE.items()},
        "truncated": answer_alarms.truncated(present, max_new_tokens),
        **{name: check(present) for name, check in PHASE.items()},
        "flatter": reward_alarms.below_greedy(held_out or {}, recent(present, "metric/mean")),
    }
    return {name: line for name in ALARMS if (line := found[name]) is not None}
