"""KADID-10k (Lin et al., 2019): 81 pictures, 25 distortions at 5 levels, with ratings.

Layout: `dmos.csv` (`dist_img`, `ref_img`, `dmos` from 1 to 5, higher is better, `var`) and
`images/`; a picture `I04_09_03.png` is the 4th under distortion 9 at level 3 (the data set's
readme). Each gives a rating record, and a degradation record where its distortion is one of
Q-Insight's classes. There is no official split: a fifth of the reference pictures, by hash, is
the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="kadid",
    summary="rate a distorted picture, or name the distortion and its severity",
    task="image_quality",
    license="Pixabay licence (pictures), research use (ratings)",
    url="https://database.mmsp-kn.de/kadid-10k-database.html",
    layout="dmos.csv and images/ (or kadid10k/ with both)",
)
TEST_SHARE = 0.2
# Number of the distortion in the picture's name -> class; the others have none of these classes.
CLASSES = {
    "01": "blur", "02": "blur", "03": "blur", "09": "compression", "10": "compression",
    "11": "noise", "12": "noise", "13": "noise", "14": "noise", "17": "darken",
}  # fmt: skip
SEVERITIES = ("slight", "moderate", "obvious", "serious", "catastrophic")


def rows(source: Source) -> Rows:
    """A rating row a picture, followed by its degradation row if it has a class."""
    file = source.need("dmos.csv", "kadid10k/dmos.csv")[0]
    for row in source.rows(file):
        split = "test" if source.held_out(row["ref_img"], TEST_SHARE) else "train"
        row["image"] = (file.parent / "images" / row["dist_img"]).relative_to(source.root)
        yield split, {**row, "kind": "rating"}
        if row["dist_img"].split("_")[1] in CLASSES:
            yield split, {**row, "kind": "degradation"}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`gt_score_norm`, or `distortion_class` and `severity`, with the picture."""
    name = raw["dist_img"].partition(".")[0]
    fields = {"id": f"{name}-{raw['kind']}", "image": source.medium(raw["image"].as_posix())}
    if raw["kind"] == "rating":
        return {**fields, "gt_score_norm": float(raw["dmos"])}
    _, distortion, level = name.split("_")
    severity = SEVERITIES[int(level) - 1]
    return {**fields, "distortion_class": CLASSES[distortion], "severity": severity}


build = Recipe(
    about=ABOUT,
    question=("distortion_class", "gt_score_norm"),
    rows=rows,
    convert=convert,
).build
