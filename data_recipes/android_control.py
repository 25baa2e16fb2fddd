"""AndroidControl (Li et al., 2024) as single steps, in the json form that UI-R1 publishes.

Layout of lll6gg/UI-R1: `dataset/ac_test*.json`, a list of `image`, `task` and `gt` (`action_type`
with `x`, `y` in pixels of the screenshot, `app_name`, `text` or `direction`). The screenshots are
AndroidControl's own, `episode_E-screenshot_S.png`, looked for in `images/`, beside the file and
in the folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.recipe import About, Recipe, Rows
from mmrl.recipes.source import Source

ABOUT = About(
    name="android_control",
    summary="the next action on an Android screenshot",
    task="gui_action",
    license="Apache-2.0",
    url="https://github.com/lll6gg/UI-R1",
    layout="dataset/ac_*.json (or ac_*.json) and images/",
)


def rows(source: Source) -> Rows:
    """The steps of each file; its name gives the split."""
    for file in source.need("dataset/ac_*.json", "ac_*.json"):
        for number, row in enumerate(source.rows(file)):
            yield (
                "train" if "train" in file.stem else "test",
                {"id": f"{file.stem}-{number}", **row},
            )


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The step with its screenshot."""
    return {**raw, "image": source.locate(raw["image"], "images", "dataset", "")}


build = Recipe(
    about=ABOUT,
    question=("task", "gt"),
    rows=rows,
    convert=convert,
).build
