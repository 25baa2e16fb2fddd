"""Recipes on public records; media that the records name and the folder lacks are stood in for."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmrl import plugins
from mmrl.data.samples import load_samples
from mmrl.recipes.manifest import verify
from mmrl.scoring.tasks import load_task
from mmrl.types import Sample
from tests.grading import real_data
from tests.recipes.grading import assert_full_marks, refuse
from tests.recipes.media import hub_picture, picture, sound, video, write_parquet


def built(name: str, raw: Path, out: Path) -> dict[str, Any]:
    facts: dict[str, Any] = plugins.load("recipe", name).build(raw, out)
    assert verify(out) == []
    return facts


def samples(name: str, out: Path, split: str) -> Iterator[Sample]:
    """The split's samples, each of which its gold earns full marks for."""
    manifest = json.loads((out / "manifest.json").read_text())
    task = load_task(manifest["task"], manifest["params"])
    for sample in load_samples(task, out / f"{split}.jsonl", name, refuse):
        assert_full_marks(task, sample)
        yield sample


def test_geometry3k_problem_folders(tmp_path: Path) -> None:
    raw = real_data("lupantech__InterGPS/annotation_tool/data_collection/data_examples")
    facts = built("geometry3k", raw, tmp_path)
    assert facts["records"] == {"all": 10} and not facts["left_out"]
    assert [s.id for s in samples("geometry3k", tmp_path, "all")] == [str(n) for n in range(11, 21)]


def test_math_vision_with_a_part_of_its_pictures(tmp_path: Path) -> None:
    raw = real_data("mathllm__MATH-V")
    facts = built("math_vision", raw, tmp_path)
    pictures = len(list((raw / "images").iterdir()))
    assert facts["records"] == {"testmini": pictures} == {"testmini": 24}
    assert facts["left_out"] == {"no file for its medium: .jpg": 304 - 24}
    assert len(list(samples("math_vision", tmp_path, "testmini"))) == 24


def test_math_vision_as_a_whole(tmp_path: Path) -> None:
    lines = real_data("mathllm__MATH-V/data/testmini.jsonl")
    raw = tmp_path / "raw"
    (raw / "data").mkdir(parents=True)
    shutil.copyfile(lines, raw / "data" / "testmini.jsonl")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    for number, row in enumerate(rows):
        picture(raw / row["image"], number)
    facts = built("math_vision", raw, tmp_path / "out")
    assert facts["records"]["testmini"] + sum(facts["left_out"].values()) == 304
    # What the task itself refuses: values that are no expression.
    assert sum(facts["left_out"].values()) <= 3
    found = (tmp_path / "out" / "testmini.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in found if "key_steps" in line]
    assert {r["id"] for r in steps} <= {r["id"] for r in rows if r["solution"]}
    assert len(steps) >= 10


def test_mmau_records(tmp_path: Path) -> None:
    file = real_data("Sakshi113__MMAU/mmau-test-mini.json")
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copyfile(file, raw / file.name)
    for number, row in enumerate(json.loads(file.read_text())):
        sound(raw / row["audio_id"], number)
    facts = built("mmau", raw, tmp_path / "out")
    assert facts["records"] == {"test-mini": 1000} and not facts["left_out"]
    assert facts["annotations"]["mmau-test-mini.json"].startswith("9f18fda99f8d")
    assert len(list(samples("mmau", tmp_path / "out", "test-mini"))) == 1000


def test_the_sound_of_an_mmau_record(tmp_path: Path) -> None:
    wav = real_data("xiaomi-research__r1-aqa/resources/3fe64f3d-282c-4bc8-a753-68f8f6c35652.wav")
    raw = tmp_path / "raw"
    (raw / "test-mini-audios").mkdir(parents=True)
    shutil.copyfile(wav, raw / "test-mini-audios" / wav.name)
    shutil.copyfile(real_data("Sakshi113__MMAU/mmau-test-mini.json"), raw / "mmau-test-mini.json")
    facts = built("mmau", raw, tmp_path / "out")
    assert facts["records"] == {"test-mini": 1}
    assert facts["left_out"] == {"no file for its medium: .wav": 999}
    (sample,) = samples("mmau", tmp_path / "out", "test-mini")
    assert sample.id == wav.stem


def test_ego_st_records(tmp_path: Path) -> None:
    file = real_data("WPR001__Ego-ST/ST-R1/r1_data/total_test_mcq_63.jsonl")
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copyfile(file, raw / file.name)
    for line in file.read_text().splitlines():
        video(raw / "videos" / Path(json.loads(line)["video"]).name)
    facts = built("ego_st", raw, tmp_path / "out")
    assert facts["records"]["test"] + sum(facts["left_out"].values()) == 63
    assert sum(facts["left_out"].values()) == 0
    assert len(list(samples("ego_st", tmp_path / "out", "test"))) == 63


def test_android_control_steps(tmp_path: Path) -> None:
    file = real_data("lll6gg__UI-R1/dataset/ac_test_first400.json")
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copyfile(file, raw / file.name)
    screen = picture(raw / "images" / "screen.png", size=(1080, 2400))
    for row in json.loads(file.read_text()):
        (raw / "images" / row["image"]).hardlink_to(screen)
    facts = built("android_control", raw, tmp_path / "out")
    assert facts["records"] == {"test": 398}
    assert facts["left_out"] == {"ValueError: a step needs an instruction": 2}
    assert len(list(samples("android_control", tmp_path / "out", "test"))) == 398


def test_bfcl_records(tmp_path: Path) -> None:
    data = "ShishirPatil__gorilla/berkeley-function-call-leaderboard/bfcl_eval/data"
    facts = built("bfcl", real_data(data), tmp_path)
    assert facts["records"] == {"test": 1240} and not facts["left_out"]
    found = list(samples("bfcl", tmp_path, "test"))
    assert {s.meta["category"] for s in found} == {
        "simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance",
    }  # fmt: skip


def test_toolrl_records(tmp_path: Path) -> None:
    facts = built("toolrl", real_data("qiancheng0__ToolRL"), tmp_path)
    assert facts["records"] == {"test": 80} and not facts["left_out"]
    assert len(list(samples("toolrl", tmp_path, "test"))) == 80


def test_expressions_of_refcoco_keep_their_ids(tmp_path: Path) -> None:
    file = real_data("lichengunc__refer/test/sample_expressions_testA.json")
    said = json.loads(file.read_text())["predictions"]
    sentences: dict[int, list[str]] = {}
    for row in said:
        sentences.setdefault(row["ref_id"], []).append(row["sent"])
    refs, images, boxes = [], [], []
    for n, (ref_id, texts) in enumerate(sorted(sentences.items())[:60]):
        listed = [{"sent_id": 1000 * n + k, "sent": t} for k, t in enumerate(texts)]
        refs.append({"ref_id": ref_id, "ann_id": n, "image_id": n, "split": "testA",
                     "sentences": listed})  # fmt: skip
        images.append({"id": n, "file_name": f"{n}.jpg"})
        boxes.append({"id": n, "image_id": n, "bbox": [1, 2, 30, 20]})
        picture(tmp_path / "raw" / "train2014" / f"{n}.jpg", n)
    folder = tmp_path / "raw" / "refcoco"
    folder.mkdir()
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    facts = built("refcoco", tmp_path / "raw", tmp_path / "out")
    assert sum(facts["records"].values()) == sum(len(r["sentences"]) for r in refs)
    for sample in samples("refcoco", tmp_path / "out", "refcoco_testA"):
        assert int(sample.id.split("-")[0]) in sentences


@pytest.mark.parametrize("subject", ["Math", "Accounting"])
def test_mmmu_answers_in_the_hubs_form(tmp_path: Path, subject: str) -> None:
    mmmu = "MMMU-Benchmark__MMMU/mmmu"
    file = real_data(f"{mmmu}/example_outputs/llava1.5_13b/{subject}/output.json")
    keys = json.loads(real_data(f"{mmmu}/answer_dict_val.json").read_text())
    rows = []
    for number, row in enumerate(json.loads(file.read_text())):
        options = list((row.get("index2ans") or {}).values())
        rows.append({
            "id": row["id"], "question": "<image 1> As the data set asks.", "explanation": "",
            "options": str(options), "answer": str(keys[row["id"]]["ground_truth"]),
            "question_type": row["question_type"].replace("short-answer", "open"),
            "image_1": hub_picture(number), "subfield": subject,
        })  # fmt: skip
    write_parquet(tmp_path / "raw" / subject / "validation-00000-of-00001.parquet", rows)
    facts = built("mmmu", tmp_path / "raw", tmp_path / "out")
    assert facts["records"] == {"validation": len(rows)} == {"validation": 30}
    assert len(list(samples("mmmu", tmp_path / "out", "validation"))) == 30
