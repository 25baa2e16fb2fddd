"""KonIQ-10k (Hosu et al., 2020): pictures as they are found, rated from 1 to 5 by many people.

Layout: `koniq10k_distributions_sets.csv` (`image_name`, counts `c1` to `c5`, `MOS`, `set`; its
MOS is scaled to 100) or `koniq10k_scores_and_distributions.csv` (no sets), and `1024x768/` or
`512x384/` (github.com/subpic/koniq). The rating is the mean of the counts, which means the same
in both. Without sets a fifth of the pictures, by hash, is the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="koniq",
    summary="rate the quality of a picture from 1 to 5",
    task="image_quality",
    license="pictures CC licences of YFCC100M, ratings research use",
    url="https://database.mmsp-kn.de/koniq-10k-database.html",
    layout="koniq10k_distributions_sets.csv (or koniq10k_scores_and_distributions.csv) "
    "and 1024x768/ (or 512x384/)",
)
TEST_SHARE = 0.2
_SETS = {"training": "train", "validation": "validation", "test": "test"}


def rows(source: Source) -> Rows:
    """A row a picture; its set is the split."""
    names = ("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")
    for row in source.rows(source.need(*names)[0]):
        held_out = source.held_out(row["image_name"], TEST_SHARE)
        yield _SETS[row["set"]] if "set" in row else ("test" if held_out else "train"), row


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`gt_score_norm`, the mean of the counts, with the picture."""
    counts = [float(raw[f"c{score}"]) for score in range(1, 6)]
    mean = sum(score * count for score, count in enumerate(counts, 1)) / sum(counts)
    image = source.locate(raw["image_name"], "1024x768", "512x384", "images")
    return {"id": raw["image_name"], "image": image, "gt_score_norm": round(mean, 4)}


build = Recipe(
    about=ABOUT,
    question=(),
    rows=rows,
    convert=convert,
).build
