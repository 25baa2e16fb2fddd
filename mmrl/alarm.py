"""Alarms of a run by name: what each watches for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

Alarm = Literal[
    "blind", "not_a_number", "skipped", "truncated", "unscorable", "unparsable", "thoughtless",
    "equal", "hacked", "collapsed", "spiked", "certain", "drifted", "longer", "flat", "leaking",
    "flatter",
]  # fmt: skip

Action = Literal["ignore", "warn", "roll_back", "stop"]
"""What a run does at an alarm."""

ALARMS: Mapping[Alarm, str] = MappingProxyType(
    {
        "blind": "samples lost their media on the way to the model",
        "not_a_number": "a loss or gradient is not a number",
        "skipped": "a tenth of the updates were skipped",
        "truncated": "a quarter of the answers end at the length limit",
        "unscorable": "verifiers fail on two answers of a hundred",
        "unparsable": "a quarter of the answers cannot be read",
        "thoughtless": "nine thoughts of ten are empty",
        "equal": "four groups of five earn the same for every answer",
        "hacked": "the reward rises while the metric falls",
        "collapsed": "the reward is half of what it was",
        "spiked": "a gradient is ten times the median",
        "certain": "the entropy is a tenth of what it was, the task unsolved",
        "drifted": "engine and trainer disagree more and more",
        "longer": "answers double in length and earn no more",
        "flat": "the reward has not moved in 40 steps",
        "leaking": "memory grows by over 2 MiB a step, after 100 of them",
        "flatter": "sampled answers are much worse than greedy ones",
    }
)
"""What sets each off, over the last steps of a phase; in the order in which they are said."""

assert set(ALARMS) == set(get_args(Alarm))
