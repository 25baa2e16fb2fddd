"""An adaptive-length mask tokenizer: residual codes, learnt from masks by k-means.

A mask is the mean mask plus one code of each stage in turn, thresholded at a half. Stages learn
what those before left over, so that any number of first tokens is a mask, the more the finer. Token
`stage * codes + code` names a code of a stage; a run of tokens goes through the stages in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmrl.types import Bools, Floats

ROUNDS = 20
HALF = 0.5


@dataclass(frozen=True)
class MaskCodes:
    """The mean mask [side, side] and the codes [stages, codes, side, side] of a tokenizer."""

    mean: Floats
    codes: Floats

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return int(self.codes.shape[0] * self.codes.shape[1])

    def decode(self, tokens: Sequence[int], side: int) -> Bools | None:
        """The mask [side, side] of a run of tokens; None where it does not follow the stages."""
        stages, each = self.codes.shape[:2]
        if len(tokens) > stages or any(t // each != i for i, t in enumerate(tokens)):
            return None
        whole = self.mean + sum(self.codes[t // each, t % each] for t in tokens)
        return _resized(whole, side) >= HALF

    def encode(self, mask: Bools, gain: float = 0.01) -> list[int]:
        """The tokens of a square mask [S, S]: as few as come within `gain` of the best IoU.

        The codes of a run are the nearest to what is left, stage by stage; at least one is taken.
        """
        small = _resized(mask.astype(np.float64), len(self.mean))
        each, left = self.codes.shape[1], small - self.mean
        tokens: list[int] = []
        for stage, codes in enumerate(self.codes):
            code = int(((codes - left) ** 2).sum(axis=(1, 2)).argmin())
            tokens.append(stage * each + code)
            left = left - codes[code]
        wanted = small >= HALF
        found = [self._overlap(tokens[:n], wanted) for n in range(1, len(tokens) + 1)]
        enough = next(n for n, iou in enumerate(found, 1) if iou >= max(found) - gain)
        return tokens[:enough]

    def save(self, path: Path) -> None:
        """Write the tokenizer, in half precision."""
        np.savez_compressed(path, mean=self.mean.astype("f2"), codes=self.codes.astype("f2"))

    def _overlap(self, tokens: Sequence[int], wanted: Bools) -> float:
        found = self.decode(tokens, len(wanted))
        assert found is not None
        union = int((found | wanted).sum())
        return float((found & wanted).sum() / union) if union else 1.0


@lru_cache(maxsize=4)
def load_codes(path: str) -> MaskCodes:
    """The tokenizer in a file; raises ValueError where it holds none."""
    try:
        with np.load(path, allow_pickle=False) as held:
            mean, codes = held["mean"].astype(np.float64), held["codes"].astype(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"no mask tokenizer in {path}: {error}") from None
    if codes.ndim != 4 or codes.shape[2:] != mean.shape:
        raise ValueError(f"no mask tokenizer in {path}: codes of shape {codes.shape}")
    return MaskCodes(mean, codes)


def learn_codes(
    masks: Sequence[Bools], stages: int, codes: int, side: int, seed: int = 0
) -> MaskCodes:
    """Learn a tokenizer of square masks [S, S], of whatever size: `stages` of `codes` each."""
    small = np.stack([_resized(mask.astype(np.float64), side) for mask in masks])
    mean = small.mean(axis=0)
    left = (small - mean).reshape(len(small), -1)
    rng, found = np.random.default_rng(seed), []
    for _ in range(stages):
        centres = _centres(left, codes, rng)
        left = left - centres[_nearest(left, centres)]
        found.append(centres.reshape(codes, side, side))
    return MaskCodes(mean, np.stack(found))


def _centres(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """K-means of points [n, d]: centres [count, d], the first of them 0, which says nothing.

    What is far from all centres so far becomes the next one to begin with.
    """
    centres = np.zeros((1, points.shape[1]))
    while len(centres) < count:
        apart = ((points[:, None] - centres[None]) ** 2).sum(-1).min(axis=1)
        chance = apart / apart.sum() if apart.sum() > 0 else np.full(len(points), 1 / len(points))
        centres = np.concatenate([centres, points[rng.choice(len(points), p=chance)][None]])
    for _ in range(ROUNDS):
        owner = _nearest(points, centres)
        for i in range(1, count):
            if (owner == i).any():
                centres[i] = points[owner == i].mean(axis=0)
    return centres


def _nearest(points: Floats, centres: Floats) -> npt.NDArray[np.intp]:
    return np.asarray(((points[:, None] - centres[None]) ** 2).sum(-1).argmin(axis=1))


def _resized(values: Floats, side: int) -> Floats:
    """A square [S, S] as [side, side], averaged where it shrinks."""
    image = Image.fromarray(values.astype(np.float32))
    how = Image.Resampling.BOX if side < len(values) else Image.Resampling.BILINEAR
    return np.asarray(image.resize((side, side), how), dtype=np.float64)
