"""ShanghaiTech (Zhang et al., CVPR 2016): crowds with every head marked; also CrowdVLM-R1's rows.

Two layouts: `part_{A,B}/{train,test}_data/images/IMG_N.jpg` with `ground_truth/GT_IMG_N.mat`,
whose `image_info[0,0][0,0][0]` holds a point a head (some copies say `part_A_final`,
`ground-truth`); or the hub's yeyimilk/CrowdVLM-R1-data, parquet files of `image`, `problem`,
`solution`. A split is called `part_A_train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="shanghaitech",
    summary="how many people are in the picture",
    task="crowd_counting",
    license="research use; CrowdVLM-R1's rows MIT",
    hub="yeyimilk/CrowdVLM-R1-data",
    url="https://github.com/desenzhou/ShanghaiTechDataset",
    layout="part_{A,B}/{train,test}_data/images/ with ground_truth/GT_*.mat, or data/*.parquet",
)
QUESTION = "How many people are in the picture?"


def rows(source: Source) -> Rows:
    """The pictures of each part in the order of their numbers, else the parquet rows."""
    pictures = source.find(
        "part_*/*_data/images/*.jpg", "*/part_*/*_data/images/*.jpg", "*_data/images/*.jpg"
    )
    for picture in sorted(pictures, key=lambda p: (p.parent, len(p.name), p.name)):
        data = picture.parent.parent
        part = data.parent.name.removesuffix("_final")
        yield f"{part}_{data.name.removesuffix('_data')}", picture
    if not pictures:
        for split, file in source.shards("data", "."):
            for number, row in enumerate(source.rows(file)):
                yield split, {"id": f"{file.stem}-{number}", **row}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`image`, `problem`, `solution`."""
    if not isinstance(raw, Path):
        return {**raw, "image": embedded(raw["image"])}
    return {
        "id": raw.stem,
        "image": source.at(raw),
        "problem": QUESTION,
        "solution": _heads(source, raw),
    }


def _heads(source: Source, picture: Path) -> int:
    """The number of marked heads."""
    from scipy.io import loadmat  # type: ignore[import-untyped]
    from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]

    data = picture.parent.parent
    names = [
        data / folder / f"GT_{picture.stem}.mat" for folder in ("ground_truth", "ground-truth")
    ]
    path = next((name for name in names if name.is_file()), None)
    if path is None:
        raise LeftOut("no ground truth beside the picture")
    source.used[path] = None
    try:
        points = loadmat(path)["image_info"][0, 0][0, 0][0]
    except (MatReadError, KeyError, IndexError, NotImplementedError) as error:
        raise LeftOut(f"unreadable ground truth: {type(error).__name__}") from None
    return len(points)


build = Recipe(
    about=ABOUT,
    question=(),
    rows=rows,
    convert=convert,
    training=("train", "part_A_train", "part_B_train"),
).build
