"""Columns that recipes compute, against values worked out by hand from the raw folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl import plugins
from mmrl.modalities import video
from mmrl.types import MediaRef
from tests.recipes.raw import LAYOUTS


def records(layout: str, folder: Path, split: str) -> list[dict[str, Any]]:
    LAYOUTS[layout](folder / "raw")
    name = layout.partition("@")[0]
    plugins.load("recipe", name).build(folder / "raw", folder / "out")
    lines = (folder / "out" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_problem_folders_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        LAYOUTS["geometry3k"](tmp_path / "raw")
        folder = tmp_path / "raw" / "data" / "geometry3k" / "train"
        if number != 2:
            (folder / "2").rename(folder / str(number))
    found = records("geometry3k", tmp_path, "train")
    assert [row["id"] for row in found] == ["2", "9", "10"]


def test_solutions_become_key_steps(tmp_path: Path) -> None:
    solved, plain = records("math_vision", tmp_path, "testmini")
    assert solved["key_steps"] == [["2x = 10", "10"], ["10/2 = 5"]]
    assert "key_steps" not in plain


def test_explanations_become_key_steps(tmp_path: Path) -> None:
    choice, opened = records("mmmu", tmp_path, "validation")
    assert opened["key_steps"] == [[r"2 \cdot 12 = 24", "24"]]
    assert "key_steps" not in choice
    assert "image_2" not in choice


def test_only_k12_rows_are_taken_and_prompts_are_cut(tmp_path: Path) -> None:
    (row,) = records("mm_eureka", tmp_path, "train")
    assert row["problem"] == "<image>As in the figure, find $x$."
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["skipped"] == {"rows that are not of K12": 1}


def test_counting_questions_are_those_whose_program_counts(tmp_path: Path) -> None:
    found = records("clevr_counting", tmp_path, "train")
    assert [(row["id"], row["solution"]) for row in found] == [("train-0", "4"), ("train-2", "0")]
    assert all(row["image"] == "images/train/CLEVR_train_000000.png" for row in found)


def test_expressions_get_the_box_and_picture_of_their_annotation(tmp_path: Path) -> None:
    first, second = records("refcoco", tmp_path, "refcoco_testA")
    assert first["bbox"] == [4.5, 6.0, 20.0, 30.0]
    assert first["image"] == "train2014/COCO_train2014_000000000002.jpg"
    assert (first["sentence"], second["sentence"]) == ("left one 2", "the left 2")


def test_drawn_pictures_carry_all_boxes_of_their_category(tmp_path: Path) -> None:
    found = records("coco_few_shot", tmp_path, "val")
    people = [row for row in found if row["categories"] == ["person"]]
    assert len(people) == 6
    for row in people:
        boxes = [box["bbox"] for box in row["annotations"]]
        assert boxes == [[0.0, 2.0, 3.5, 20.0], [4.0, 2.0, 3.5, 20.0]]
    drawn = records("coco_few_shot", tmp_path, "train")
    assert sum(row["categories"] == ["dog"] for row in drawn) == 4


def test_another_seed_draws_other_pictures(tmp_path: Path) -> None:
    LAYOUTS["coco_few_shot"](tmp_path / "raw")
    build = plugins.load("recipe", "coco_few_shot").build
    chosen = []
    for seed in (0, 0, 1):
        build(tmp_path / "raw", tmp_path / "out", seed=seed)
        chosen.append((tmp_path / "out" / "train.jsonl").read_text())
    assert chosen[0] == chosen[1] != chosen[2]


def test_categories_of_lvis_are_readable(tmp_path: Path) -> None:
    found = records("lvis_few_shot", tmp_path, "train")
    assert [row["categories"] for row in found] == [["alarm clock"]] * 2
    assert {row["image"] for row in found} == {
        "train2017/000000000001.jpg",
        "val2017/000000000002.jpg",
    }


def test_the_closed_set_is_every_label_of_the_training_split(tmp_path: Path) -> None:
    for row in records("visual_rft_classes", tmp_path, "train"):
        assert row["labels"] == ["pink primrose", "rose"]


@pytest.mark.parametrize(("split", "heads"), [("part_A_train", 3), ("part_A_test", 25)])
def test_crowds_are_counted_by_their_marked_heads(tmp_path: Path, split: str, heads: int) -> None:
    (row,) = records("shanghaitech", tmp_path, split)
    assert row["solution"] == heads


def test_distortions_have_class_and_severity_by_name(tmp_path: Path) -> None:
    found = {row["id"]: row for row in records("kadid", tmp_path, "train")}
    assert found["I01_01_03-rating"]["gt_score_norm"] == 3.2
    blurred = found["I01_01_03-degradation"]
    assert (blurred["distortion_class"], blurred["severity"]) == ("blur", "obvious")
    packed = found["I02_09_05-degradation"]
    assert (packed["distortion_class"], packed["severity"]) == ("compression", "catastrophic")
    assert "I01_04_01-degradation" not in found


@pytest.mark.parametrize("layout", ["koniq", "koniq@scores"])
def test_ratings_are_the_mean_of_the_counts(tmp_path: Path, layout: str) -> None:
    # (25 x 3 + 73 x 4 + 7 x 5) / 105 = 402 / 105
    (row,) = records(layout, tmp_path, "train")
    assert row["gt_score_norm"] == 3.8286


def test_the_letter_is_that_of_the_answers_text(tmp_path: Path) -> None:
    first, second = records("omnimedvqa", tmp_path, "train")
    assert first["problem"].endswith("A) MRI, B) CT, C) X-Ray, D) PET")
    assert "B" in first["solution"] and "D" in second["solution"]


def test_moments_and_lengths_of_videos(tmp_path: Path) -> None:
    (row,) = records("charades_sta", tmp_path, "test")
    assert row["timestamp"] == [0.5, 2.4] and row["duration"] == 2.0
    assert row["sentence"] == "person turn a light on."


def test_eight_frames_become_a_video_with_their_boxes(tmp_path: Path) -> None:
    (row,) = records("got10k", tmp_path, "train")
    # 15 frames: numbers 0, 2, 4 ... 14; the box starts at x = n of 80 and is 40 wide; its lower
    # edge, 6 + 60 of 60, is cut at the rim.
    assert row["frames"] == [1, 3, 5, 7, 9, 11, 13, 15]
    assert row["gt"][0] == [0.0, 0.1, 0.5, 1.0]
    assert row["gt"][7] == [14 / 80, 0.1, 54 / 80, 1.0]
    media = video.decode(
        MediaRef("video", tmp_path / "out" / row["path"], {"frames": 8, "min_frames": 1})
    )
    raw = tmp_path / "raw" / "train" / "GOT-10k_Train_000001"
    for shown, number in zip(media.array, row["frames"], strict=True):
        frame = np.asarray(Image.open(raw / f"{number:08d}.jpg"), dtype=float)
        # Decoders differ in how they scale colour up, so only the means are exact enough.
        assert np.abs(shown.mean((0, 1)) - frame.mean((0, 1))).max() < 2


def test_tasks_of_mvbench_know_their_folders(tmp_path: Path) -> None:
    found = {row["task"]: row for row in records("mvbench", tmp_path, "test")}
    assert found["action_antonym"]["video"] == "video/ssv2_video/1.webm"
    assert found["action_sequence"]["start"] == 0.5
    assert found["episodic_reasoning"]["video"] == "video/tvqa/frames_fps3_hq/castle_01.avi"


def test_a_file_with_any_number_above_one_is_in_pixels(tmp_path: Path) -> None:
    (row,) = records("gui_r1", tmp_path, "train")
    assert row["bbox_space"] == "unit"
    (row,) = records("gui_r1", tmp_path, "screenspot_test")
    assert row["bbox_space"] == "source_pixels"


def test_gold_queries_are_run(tmp_path: Path) -> None:
    records("spider", tmp_path, "train")
    left_out = json.loads((tmp_path / "out" / "left_out.jsonl").read_text())
    assert left_out["id"] == "train_spider-1" and "no such table" in left_out["reason"]


def test_answers_stand_beside_the_questions(tmp_path: Path) -> None:
    first, second = records("bfcl", tmp_path, "test")
    golds = {row["id"]: row["ground_truth"] for row in (first, second)}
    assert golds == {"simple_python_0": [{"area": {"width": [3]}}], "irrelevance_0": []}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["skipped"] == {"files of category simple_java": 1}


def test_segmentation_files_of_other_encodings_are_read(tmp_path: Path) -> None:
    (row,) = records("reasonseg", tmp_path, "val")
    assert row["text"] == "the caf\u00e9"
    first, second = records("reasonseg", tmp_path, "train")
    assert (first["id"], second["id"]) == ("1001-0", "1001-1")
    assert first["shapes"][1]["label"] == "ignore"


def test_what_a_gsm8k_solution_works_out_are_key_steps(tmp_path: Path) -> None:
    (row,) = records("gsm8k", tmp_path, "train")
    assert (row["answer"], row["key_steps"]) == ("24", ["48/2=24"])


def test_math_takes_the_last_box_with_its_braces(tmp_path: Path) -> None:
    (row,) = records("hendrycks_math", tmp_path, "train")
    assert (row["answer"], row["level"]) == (r"\frac{1}{2}", "2")
    assert row["key_steps"] == [["2/4 = 1/2", "1/2"]]


def test_musique_keeps_the_hops(tmp_path: Path) -> None:
    (row,) = records("musique", tmp_path, "train")
    assert row["key_steps"] == ["Ida Ek", "Bergen"] and row["answer_aliases"] == ["Bjorgvin"]
    assert [set(each) for each in row["paragraphs"]] == [{"title", "paragraph_text"}] * 2


def test_next_gqa_has_the_letter_of_the_answer_and_its_moments(tmp_path: Path) -> None:
    (row,) = records("next_gqa", tmp_path, "test")
    assert row["answer"] == "(B)" and row["options"][1] == "(B) it was red"
    assert row["glue"] == [[0.2, 1.1], [1.5, 1.9]] and row["video"].endswith("1164/42.mp4")


def test_super_clevr_splits_by_scene(tmp_path: Path) -> None:
    (row,) = records("super_clevr", tmp_path, "val")
    assert (row["solution"], row["image"]) == ("0", "images/superCLEVR_new_020000.png")


def test_blind_test_asks_in_its_own_form(tmp_path: Path) -> None:
    circles, lines, grid, letter = records("blind_test", tmp_path, "valid")
    kinds = [row["problem_type"] for row in (circles, lines, grid, letter)]
    assert kinds == ["yes/no", "numerical", "OCR", "OCR"]
    assert lines["problem"].endswith("touch each other? Answer with a number")
    assert grid["problem"].endswith("columns and answer. Answer with rows,columns.")
    assert not any("{" in row["problem"] for row in (circles, lines, grid, letter))


def test_difficulties_of_reasonseg_are_those_of_their_texts(tmp_path: Path) -> None:
    easy, hard = records("reasonseg", tmp_path, "train")
    assert (easy["difficulty_score"], hard["difficulty_score"]) == (2.0, 6.5)
    assert easy["uncertainty_score"] == hard["uncertainty_score"] == 0.4
