"""MVBench (Li et al., CVPR 2024): twenty temporal tasks over videos of eleven data sets.

Layout of the hub: `json/TASK.json`, lists of `video`, `question`, `candidates`, `answer` (a
text), for some `start` and `end` in seconds, and `video/` with a folder a source, named in
OpenGVLab/Ask-Anything's `video_chat2/mvbench.ipynb`. Episodic reasoning has folders of frames,
three a second, which become videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mmrl.recipes.frames import motion_jpeg
from mmrl.recipes.medium import LeftOut, Medium
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="mvbench",
    summary="multiple choice over twenty temporal tasks",
    task="video_choice",
    license="MIT; videos have their owners' licences",
    hub="OpenGVLab/MVBench",
    url="https://github.com/OpenGVLab/Ask-Anything",
    layout="json/*.json and video/ with star/, ssv2_video/, clevrer/ ...",
)
FOLDERS = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": "clevrer/video_validation",
}
FRAME_RATE = 3


def rows(source: Source) -> Rows:
    """The questions of every task, in the order of the tasks' names."""
    for file in source.need("json/*.json"):
        if file.stem not in FOLDERS:
            source.skipped[f"file {file.name}, which is no task of MVBench"] += 1
            continue
        for number, row in enumerate(source.rows(file)):
            yield "test", {**row, "id": f"{file.stem}-{number}", "task": file.stem}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The question with its video; other columns as they are."""
    folder = PurePosixPath("video", FOLDERS[raw["task"]])
    if raw["task"] == "episodic_reasoning":
        return {**raw, "video": _joined(source, folder / raw["video"])}
    return {**raw, "video": source.medium(str(folder), raw["video"])}


def _joined(source: Source, folder: PurePosixPath) -> Medium:
    frames = sorted((source.root / folder).glob("*.jpg"))
    if not frames:
        raise LeftOut("no frames for its video")
    return Medium(motion_jpeg(frames, FRAME_RATE), folder.with_name(f"{folder.name}.avi"))


build = Recipe(
    about=ABOUT,
    question=("question", "candidates"),
    rows=rows,
    convert=convert,
    params={"average": "tasks"},
    training=(),
).build
