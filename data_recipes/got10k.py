"""GOT-10k (Huang et al., 2019) as tracking over 8 frames, VideoChat-R1's form of it.

Layout: `{train,val}/SEQUENCE/` with `00000001.jpg` ..., `groundtruth.txt` (a line a frame: x, y,
width, height in pixels), `absence.label`, `meta_info.ini` (`object_class`), and optionally
`list.txt` (got-10k/toolkit). Eight frames, evenly spread with first and last, become a video of
their JPEG pictures at one frame a second; boxes are scaled to 0-1 and cut at the rim. A sequence
whose object is absent from one of them is left out. The public test split has no boxes.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from mmrl.recipes.frames import motion_jpeg
from mmrl.recipes.medium import LeftOut, Medium
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="got10k",
    summary="follow an object through eight frames",
    task="tracking",
    license="CC-BY-NC-SA-4.0",
    url="http://got-10k.aitestunion.com/downloads",
    layout="{train,val}/SEQUENCE/ with groundtruth.txt, meta_info.ini and *.jpg",
)
FRAMES = 8


def rows(source: Source) -> Rows:
    """A row a sequence, in the order of the names."""
    found = source.need("*/*/groundtruth.txt", "*/*/*/groundtruth.txt")
    for file in found:
        split = file.parent.parent.name
        if split in ("train", "val"):
            yield split, file
        else:
            source.skipped[f"sequences of {split}, which has no public boxes"] += 1


def convert(raw: Path, source: Source) -> Mapping[str, Any]:
    """`path` of the video, `object`, `gt` boxes xyxy in 0-1."""
    folder = raw.parent
    boxes = [line for line in source.text(raw).splitlines() if line.strip()]
    frames = sorted(folder.glob("*.jpg"))
    if len(frames) != len(boxes) or len(frames) < FRAMES:
        raise LeftOut(f"fewer than {FRAMES} frames, or not a box a frame")
    chosen = [round(i * (len(frames) - 1) / (FRAMES - 1)) for i in range(FRAMES)]
    absence = folder / "absence.label"
    if absence.is_file():
        absent = source.text(absence).split()
        if any(absent[i] != "0" for i in chosen):
            raise LeftOut("the object is absent from a chosen frame")
    with Image.open(frames[0]) as first:
        size = first.size
    place = PurePosixPath("videos", folder.parent.name, f"{folder.name}.avi")
    return {
        "id": folder.name,
        "path": Medium(motion_jpeg([frames[i] for i in chosen], fps=1), place),
        "object": _object(source, folder),
        "gt": [_unit(boxes[i], size) for i in chosen],
        "frames": [i + 1 for i in chosen],
    }


def _unit(line: str, size: tuple[int, int]) -> list[float]:
    x, y, width, height = (float(number) for number in line.split(","))
    corners = (x / size[0], y / size[1], (x + width) / size[0], (y + height) / size[1])
    return [round(min(max(value, 0.0), 1.0), 6) for value in corners]


def _object(source: Source, folder: Path) -> str:
    meta = configparser.ConfigParser()
    try:
        meta.read_string(source.text(folder / "meta_info.ini"))
    except configparser.Error as error:
        raise LeftOut(f"meta_info.ini: {type(error).__name__}") from None
    return meta["METAINFO"]["object_class"].strip()


build = Recipe(
    about=ABOUT,
    question=("object",),
    rows=rows,
    convert=convert,
).build
