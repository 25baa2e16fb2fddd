"""What holds for every recipe, on small raw folders in the public schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmrl import cli, plugins
from mmrl.data.samples import load_samples
from mmrl.recipes.manifest import verify
from mmrl.recipes.settings import Options
from mmrl.scoring.tasks import load_task
from tests.recipes.grading import assert_full_marks, refuse
from tests.recipes.raw import LAYOUTS, Expected

RECIPES = plugins.available("recipe")
# Recipes that make their data have no layout to read.
NAMES = sorted(name for name in RECIPES if plugins.load("recipe", name).ABOUT.layout)

# Task -> public sets that must have a recipe.
PUBLIC = {
    "audio_qa": "avqa mmar mmau",
    "audio_visual_qa": "avqa_r1",
    "chart_qa": "chart_qa",
    "counting": "clevr_counting super_clevr",
    "crowd_counting": "shanghaitech",
    "detection": "coco_few_shot lvis_few_shot",
    "ego_st": "ego_st",
    "fine_grained": "visual_rft_classes",
    "geometry3k": "geometry3k geoqa mm_eureka mulberry",
    "gui_action": "android_control gui_r1",
    "gui_grounding": "screenspot screenspot_pro screenspot_v2",
    "image_quality": "kadid koniq",
    "grounded_video_qa": "next_gqa",
    "math": "gsm8k hendrycks_math",
    "math_vision": "math_vision",
    "mathverse": "mathverse",
    "mathvista": "mathvista",
    "medical_vqa": "omnimedvqa",
    "mmmu": "mmmu",
    "reasoning_segmentation": "reasonseg",
    "referring_box": "refcoco",
    "search_qa": "musique",
    "temporal_grounding": "charades_sta",
    "text_to_sql": "bird spider",
    "tool_calls": "bfcl toolrl",
    "tracking": "got10k",
    "trance": "trance",
    "video_hallu": "videohallu",
    "vqa_mix": "blind_test",
    "video_choice": "mvbench video_mme",
    "vsi_bench": "vsi_bench",
}


def build(layout: str, raw: Path, out: Path, **options: Any) -> dict[str, Any]:
    facts: dict[str, Any] = plugins.load("recipe", layout.partition("@")[0]).build(
        raw, out, options=Options(**options)
    )
    return facts


@pytest.fixture(params=sorted(LAYOUTS))
def built(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Expected]:
    expected = LAYOUTS[request.param](tmp_path / "raw")
    build(request.param, tmp_path / "raw", tmp_path / "out")
    return request.param, tmp_path, expected


def test_the_public_sets_that_tasks_are_made_for_have_a_recipe() -> None:
    for task, recipes in PUBLIC.items():
        found = {name for name in NAMES if plugins.load("recipe", name).ABOUT.task == task}
        assert set(recipes.split()) <= found, task
    assert plugins.load("recipe", "refcoco").DATASETS == ("refcoco", "refcoco+", "refcocog")


def test_every_recipe_has_a_layout() -> None:
    assert {layout.partition("@")[0] for layout in LAYOUTS} == set(NAMES)


def test_records_manifest_and_bytes(built: tuple[str, Path, Expected]) -> None:
    layout, folder, expected = built
    out = folder / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["records"] == expected.records
    left_out = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert sum(manifest["left_out"].values()) == len(left_out) == expected.left_out
    assert all(row["reason"] for row in left_out)
    assert manifest["license"] and manifest["annotations"] and manifest["source"]["layout"]
    assert verify(out) == []
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    assert set(manifest["sha256"]) == written - {"manifest.json"}

    build(layout, folder / "raw", folder / "copied", copy=True)
    assert (folder / "copied" / "manifest.json").read_bytes() == (
        out / "manifest.json"
    ).read_bytes()
    assert not any(p.is_symlink() for p in (folder / "copied").rglob("*"))


def test_every_record_loads_and_its_gold_earns_full_marks(
    built: tuple[str, Path, Expected],
) -> None:
    _, folder, expected = built
    out = folder / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    task = load_task(manifest["task"], manifest["params"])
    for split, number in expected.records.items():
        samples = load_samples(task, out / f"{split}.jsonl", task.name, refuse)
        assert len(samples) == number
        for sample in samples:
            assert_full_marks(task, sample)


JUNK = (
    b"",
    b"junk",
    b"[]",
    b"[1]",
    b"{}",
    b'[{"id": 1}]',
    b'{"id": 1}\n',
    b"\xff\xfe\x00",
    b"a,b\n1",
)


def test_annotations_of_another_form_are_one_line_and_never_a_crash(
    built: tuple[str, Path, Expected], capsys: pytest.CaptureFixture[str]
) -> None:
    layout, folder, _ = built
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    name = layout.partition("@")[0]
    for annotation in manifest["annotations"]:
        file = folder / "raw" / annotation
        before = file.read_bytes()
        for junk in JUNK:
            file.write_bytes(junk)
            code = cli.main(["data", name, "--in", str(folder / "raw"), "--out", str(folder / "b")])
            said = capsys.readouterr()
            if code == 0:  # other files still gave records
                assert verify(folder / "b") == []
            else:
                assert (code, said.err.count("\n")) == (2, 1), said.err
                assert not (folder / "b" / "manifest.json").exists()
        file.write_bytes(before)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_the_data_is_one_line_and_exit_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = plugins.load("recipe", name).ABOUT
    (tmp_path / "raw").mkdir()
    assert about.name == name
    for arguments in (["--in", str(tmp_path / "raw")], ["--in", str(tmp_path / "no")], []):
        assert cli.main(["data", name, *arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert about.layout in error and (about.hub or about.url) in error
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_list_names_every_recipe_with_its_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(lines) == set(RECIPES)
    for name in NAMES:
        about = plugins.load("recipe", name).ABOUT
        assert about.task in plugins.available("task")
        assert about.task in lines[name] and (about.hub or about.url) in lines[name]
        assert re.match(r"https?://", about.url)


def test_the_readme_has_every_recipe_with_its_task_source_and_licence() -> None:
    module = plugins.load("recipe", "digits")
    text = (Path(str(module.__file__)).parent / "README.md").read_text(encoding="utf-8")
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \|.*$", text, re.MULTILINE)}
    assert set(rows) >= set(RECIPES)
    for name in NAMES:
        about = plugins.load("recipe", name).ABOUT
        for fact in (about.summary, f"`{about.task}`", about.hub or about.url, about.license):
            assert fact in rows[name]
