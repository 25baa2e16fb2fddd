"""AndroidControl (Li et al., 2024) as single steps: the original episodes, or UI-R1's json form.

Original layout (gs://gresearch/android_control): gzipped TFRecord shards `android_control-*`, an
episode a record (`episode_id`, `goal`, `screenshots`, `actions` as JSON, `step_instructions`), and
`splits.json` (split -> episode ids). A step asks for its own instruction; `goal` is beside it.

Layout of lll6gg/UI-R1: `dataset/ac_test*.json`, a list of `image`, `task` and `gt` (`action_type`
with `x`, `y` in pixels of the screenshot, `app_name`, `text` or `direction`). The screenshots are
AndroidControl's own, `episode_E-screenshot_S.png`, looked for in `images/`, beside the file and
in the folder itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source, embedded
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="android_control",
    summary="the next action on an Android screenshot",
    task="gui_action",
    license="Apache-2.0",
    url="https://github.com/google-research/google-research/tree/master/android_control",
    layout="android_control-* (TFRecord) and splits.json, or dataset/ac_*.json and images/",
)


def rows(source: Source) -> Rows:
    """The steps of each episode, or of each json file, whose name gives the split."""
    if shards := source.find("android_control-*"):
        splits = {
            str(episode): split
            for split, episodes in source.members(source.need("splits.json")[0])
            for episode in episodes
        }
        for shard in shards:
            for episode in source.examples(shard):
                yield from _steps(episode, splits)
        return
    for file in source.need("dataset/ac_*.json", "ac_*.json"):
        for number, row in enumerate(source.rows(file)):
            yield (
                "train" if "train" in file.stem else "test",
                {"id": f"{file.stem}-{number}", **row},
            )


def _steps(
    episode: Mapping[str, list[Any]], splits: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """An episode's steps; the last screenshot, behind the last action, is not asked about."""
    number = str(episode["episode_id"][0])
    steps = zip(episode["actions"], episode["step_instructions"], strict=True)
    for step, (action, instruction) in enumerate(steps):
        yield (
            splits.get(number, "train"),
            {
                "id": f"episode_{number}-step_{step}",
                "task": instruction.decode("utf-8"),
                "goal": episode["goal"][0].decode("utf-8"),
                "gt": json.loads(action),
                "screenshot": episode["screenshots"][step],
            },
        )


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """The step with its screenshot."""
    if "screenshot" not in raw:
        return {**raw, "image": source.locate(raw["image"], "images", "dataset", "")}
    columns = {name: value for name, value in raw.items() if name != "screenshot"}
    if not raw["task"].strip():
        raise LeftOut("the step has no instruction")
    return {**columns, "image": embedded(raw["screenshot"])}


build = Recipe(
    about=ABOUT,
    question=("task", "gt"),
    rows=rows,
    convert=convert,
).build
