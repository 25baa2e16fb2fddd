"""OmniMedVQA (Hu et al., CVPR 2024): multiple choice over medical pictures of many modalities.

Layout of the hub: `QA_information/Open-access/NAME.json`, a list of `dataset`, `question_id`,
`question_type`, `question`, `gt_answer` (a text), `option_A` ... `option_D`, `image_path`,
`modality_type`, with `Images/`. Med-R1 splits by question and publishes no list; here a fifth of
the pictures, by hash, is the test split, so that no picture is in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrl.recipes.medium import LeftOut
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe, Rows

ABOUT = About(
    name="omnimedvqa",
    summary="multiple choice over medical pictures",
    task="medical_vqa",
    license="research use; pictures keep the licences of 73 sources",
    hub="foreverbeliever/OmniMedVQA",
    url="https://openxlab.org.cn/datasets/GMAI/OmniMedVQA",
    layout="QA_information/Open-access/*.json and Images/ (or OmniMedVQA/ with both)",
)
TEST_SHARE = 0.2
LETTERS = "ABCD"


def rows(source: Source) -> Rows:
    """The questions of every file."""
    files = source.need(
        "QA_information/Open-access/*.json", "OmniMedVQA/QA_information/Open-access/*.json"
    )
    for file in files:
        folder = file.parents[2].relative_to(source.root).as_posix()
        for row in source.rows(file):
            test = source.held_out(row["image_path"], TEST_SHARE)
            yield "test" if test else "train", {**row, "folder": folder}


def convert(raw: Any, source: Source) -> Mapping[str, Any]:
    """`problem` with the options in its text, `solution` a letter."""
    options = {x: str(raw[f"option_{x}"]).strip() for x in LETTERS if raw.get(f"option_{x}")}
    right = [x for x, text in options.items() if text == str(raw["gt_answer"]).strip()]
    if len(right) != 1:
        raise LeftOut(f"the answer is {len(right)} of the options")
    listed = ", ".join(f"{letter}) {text}" for letter, text in options.items())
    return {
        "id": raw["question_id"],
        "image": source.medium(raw["folder"], raw["image_path"]),
        "problem": f"{str(raw['question']).strip()} {listed}",
        "solution": f"<answer> {right[0]} </answer>",
        "modality": raw.get("modality_type"),
        "question_type": raw.get("question_type"),
        "dataset": raw.get("dataset"),
    }


build = Recipe(
    about=ABOUT,
    question=("problem",),
    rows=rows,
    convert=convert,
).build
