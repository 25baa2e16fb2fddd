"""Rewards of a list of boxes: Visual-RFT's overlap and confidence, VLM-R1's weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mmrl.rewards.boxes import Box
from mmrl.rewards.detection import Detection, match_by_confidence, match_by_overlap

Variant = Literal["strict", "code"]


def overlap_reward(golds: Sequence[Box], found: Sequence[Detection], variant: Variant) -> float:
    """Sum of matched IoU over the larger number of boxes; nothing found of nothing is 1.

    `code` removes exactly equal boxes first (Visual-RFT), so that repeats cost nothing.
    """
    if not golds or not found:
        return float(not golds and not found)
    if variant == "code":
        found = list({d.box: d for d in reversed(found)}.values())
    return sum(match_by_confidence(golds, found)) / max(len(golds), len(found))


def confidence_reward(golds: Sequence[Box], found: Sequence[Detection], variant: Variant) -> float:
    """Mean over detections of the confidence if matched, else of its complement.

    `strict` weighs it by the share of gold boxes found, so that a junk box of confidence 0 does
    not earn what `code` (Visual-RFT) pays for it.
    """
    if not found:
        return float(not golds) if variant == "strict" else 0.0
    overlaps = match_by_confidence(golds, found)
    honest = [d.score if o else 1 - d.score for d, o in zip(found, overlaps, strict=True)]
    mean = sum(honest) / len(honest)
    if variant == "code":
        return mean
    return mean * sum(map(bool, overlaps)) / len(golds) if golds else 0.0


def weighted_sum(
    golds: Sequence[Box], labels: Sequence[str], found: Sequence[Detection], variant: Variant
) -> float:
    """0.7 of the well-placed share and 0.3 of completeness (VLM-R1's detection_score).

    Completeness is 1 minus the mean of the miss and false alarm rates. `strict` counts a match
    under a wrong label as neither; `code` pays 0.3 for it.
    """
    if not golds or not found:
        return float(not golds and not found)
    matched = match_by_overlap(golds, found)
    right = [(g, d, overlap) for g, d, overlap in matched if labels[g] == found[d].label]
    position = sum(overlap for _, _, overlap in right) / len(golds)
    hits = len(matched) if variant == "code" else len(right)
    completeness = (hits / len(golds) + hits / len(found)) / 2
    return 0.7 * position + 0.3 * completeness
