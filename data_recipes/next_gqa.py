"""NExT-GQA (Xiao et al., CVPR 2024): multiple choice about a video, with the moments that show it.

Layout of doc-doc/NExT-GQA's `datasets/nextgqa`: `{val,test}.csv` (`video_id`, `question`, `answer`
as text, `qid`, `type`, `a0` to `a4`), `gsub_{val,test}.json` (`{video: {"duration", "location":
{qid: [[start, end]]}}}`), `map_vid_vidorID.json`, and the videos below `videos/` or `NExTVideo/`.
Training questions have no moments; they are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="next_gqa",
    summary="multiple choice about a video, with the moments that show it",
    task="grounded_video_qa",
    license="MIT (annotations); videos of VidOR",
    url="https://github.com/doc-doc/NExT-GQA",
    layout="{val,test}.csv, gsub_{val,test}.json, map_vid_vidorID.json and videos/",
)
CHOICES = tuple(f"a{i}" for i in range(5))


def rows(source: Source) -> Rows:
    """The questions of each split with moments, each beside its moments and its video's place."""
    (places,) = source.need("map_vid_vidorID.json", "*/map_vid_vidorID.json")
    where = dict(source.members(places))
    for file in source.need("gsub_*.json", "*/gsub_*.json"):
        split = file.stem.removeprefix("gsub_")
        moments = dict(source.members(file))
        table = file.with_name(f"{split}.csv")
        if not table.is_file():
            raise source.missing(f"{split}.csv beside {file.name}")
        for row in source.rows(table):
            video = moments.get(row["video_id"], {})
            yield split, (row, video, where.get(row["video_id"], row["video_id"]))


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`question`, lettered `options`, `answer` as a letter, `glue` in seconds, the video."""
    row, video, place = raw
    spans = video.get("location", {}).get(str(row["qid"]))
    if not spans:
        raise LeftOut("no moment is given for the question")
    choices = [row[key] for key in CHOICES]
    if choices.count(row["answer"]) != 1:
        raise ValueError(f"the answer is {choices.count(row['answer'])} of the choices")
    return {
        "id": f"{row['video_id']}-{row['qid']}",
        "video": source.locate(f"{place}.mp4", "videos", "NExTVideo"),
        "question": f"{row['question'].strip().rstrip('?')}?",
        "options": [f"({letter}) {text}" for letter, text in zip("ABCDE", choices, strict=True)],
        "answer": f"({'ABCDE'[choices.index(row['answer'])]})",
        "glue": spans,
        "type": row["type"],
        "duration": video["duration"],
    }


build = Recipe(
    about=ABOUT,
    question=("question", "options"),
    rows=rows,
    convert=convert,
    training=(),
).build
