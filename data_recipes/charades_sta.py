"""Charades-STA (Gao et al., ICCV 2017): when in a video a sentence holds.

Layout of jiyanggao/TALL: `charades_sta_{train,test}.txt`, lines `VIDEO START END##sentence`, with
`Charades_v1_{train,test}.csv` for the lengths (columns `id`, `length`; optional) and the videos
in `Charades_v1_480/` or `Charades_v1/`. Some moments end up to a second after their video; their
golds stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="charades_sta",
    summary="when in a video a sentence holds",
    task="temporal_grounding",
    license="Charades: non-commercial research use",
    url="https://github.com/jiyanggao/TALL",
    layout="charades_sta_{train,test}.txt, Charades_v1_480/*.mp4, "
    "and for lengths Charades_v1_{train,test}.csv",
)


def rows(source: Source) -> Rows:
    """A row a line, with the video's length where it is known."""
    for file in source.need("[cC]harades_sta_*.txt"):
        split = file.stem.rpartition("_")[2]
        lengths = {}
        for table in source.find(f"Charades_v1_{split}.csv", f"Charades/Charades_v1_{split}.csv"):
            lengths = {row["id"]: float(row["length"]) for row in source.rows(table)}
        for number, line in enumerate(source.text(file).splitlines()):
            if line.strip():
                yield split, (number, line, lengths)


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`video`, `sentence`, `timestamp` in seconds, `duration`."""
    number, line, lengths = raw
    moment, mark, sentence = line.partition("##")
    if not mark or len(moment.split()) != 3:
        raise LeftOut("not a line VIDEO START END##sentence")
    video, start, end = moment.split()
    length = {"duration": lengths[video]} if video in lengths else {}
    return {
        "id": f"{video}-{number}",
        "video": source.locate(f"{video}.mp4", "Charades_v1_480", "Charades_v1", "videos"),
        "sentence": sentence.strip(),
        "timestamp": [float(start), float(end)],
        **length,
    }


build = Recipe(
    about=ABOUT,
    question=("sentence",),
    rows=rows,
    convert=convert,
).build
