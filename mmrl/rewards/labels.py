"""Answers that name one label of a closed set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmrl.rewards.dress import undress
from mmrl.rewards.parsed import Parsed, malformed, ok
from mmrl.rewards.text import normalize


@dataclass(frozen=True, slots=True)
class Label:
    """Gold label; `labels` is the closed set, or empty where the data set names none."""

    name: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys = [label_key(label) for label in self.labels]
        if not label_key(self.name):
            raise ValueError("the gold label is empty")
        if len(set(keys)) != len(keys) or not all(keys):
            raise ValueError("labels that are empty or differ only in case or spacing")
        if keys and label_key(self.name) not in keys:
            raise ValueError(f"gold label {self.name!r} is none of {len(keys)} labels")


def label_key(text: str) -> str:
    """Fold case, underscores, spacing and one final full stop (`Pink_Primrose.`)."""
    return normalize(undress(text).replace("_", " ")).removesuffix(".").rstrip()


def parse_label(text: str, labels: Sequence[str]) -> Parsed[str]:
    """Read the key of exactly one label; text around it, or two labels, name none.

    Without a closed set any text is a label.
    """
    key = label_key(text)
    if not key:
        return Parsed("missing", None, "empty label")
    if labels and key not in {label_key(label) for label in labels}:
        return malformed(f"none of {len(labels)} labels: '{text:.40}'")
    return ok(key)


def grade_label(text: str, gold: Label) -> tuple[Parsed[str], bool]:
    """How the text reads as a label, and whether it is the gold."""
    parsed = parse_label(text, gold.labels)
    return parsed, parsed.value == label_key(gold.name)


def contained(text: str, gold: str) -> bool:
    """Visual-RFT's rule: either contains the other once spaces and underscores are gone.

    An empty text is contained in everything, and so is right.
    """
    ours, theirs = (t.replace(" ", "").replace("_", "").lower() for t in (text, gold))
    return ours in theirs or theirs in ours
