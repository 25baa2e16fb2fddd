"""Small raw folders in the public schemas, one function a layout, by `RECIPE` or `RECIPE@LAYOUT`.

Each says how many records a split must get and how many rows must be left out.
"""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io

from tests.recipes.media import (
    hub_picture,
    picture,
    sound,
    video,
    write,
    write_json,
    write_lines,
    write_parquet,
    write_tfrecord,
)


class Expected(NamedTuple):
    """Records by split, and rows left out."""

    records: dict[str, int]
    left_out: int = 0


def geometry3k(root: Path) -> Expected:
    for split, number in (("train", 2), ("val", 1), ("test", 10)):
        folder = root / "data" / "geometry3k" / split / str(number)
        picture(folder / "img_diagram.png", number)
        problem = {
            "problem_text": f"Find x, number {number}.", "choices": ["3", "4", "5", "6"],
            "answer": "C", "precise_value": [3.0, 4.0, 5.0, 6.0], "rough_value": [3, 4, 5, 6],
            "compact_choices": ["3", "4", "5", "6"], "unit": "", "id": number,
        }  # fmt: skip
        write_json(folder / "data.json", problem)
    return Expected({"train": 1, "val": 1, "test": 1})


def geometry3k_hub(root: Path) -> Expected:
    row = {"images": [hub_picture(1)], "problem": "<image>Find x.", "answer": r"2\sqrt{221}"}
    second = {**row, "answer": "48", "images": [hub_picture(2)]}
    write_parquet(root / "data" / "train-00000-of-00001.parquet", [row, second])
    write_parquet(root / "data" / "test-00000-of-00001.parquet", [{**row, "problem": "<image>y?"}])
    return Expected({"train": 2, "test": 1})


def mathvista(root: Path) -> Expected:
    base = {"unit": None, "query": "", "metadata": {"task": "figure question answering"}}
    problems = {
        "1": {**base, "pid": "1", "question": "How far?", "image": "images/1.png", "choices": None,
              "precision": 1.0, "answer": "1.2", "question_type": "free_form",
              "answer_type": "float"},
        "2": {**base, "pid": "2", "question": "Which?", "image": "images/2.png",
              "choices": ["circle", "square"], "precision": None, "answer": "square",
              "question_type": "multi_choice", "answer_type": "text"},
    }  # fmt: skip
    write_json(root / "data" / "testmini.json", problems)
    for n in (1, 2):
        picture(root / "data" / "images" / f"{n}.png", n)
    return Expected({"testmini": 2})


def mathvista_hub(root: Path) -> Expected:
    row = {
        "pid": "7", "question": "How many?", "image": "images/7.jpg",
        "decoded_image": hub_picture(7), "choices": None, "unit": None, "precision": None,
        "answer": "3", "question_type": "free_form", "answer_type": "integer",
        "metadata": {"task": "counting"}, "query": "",
    }  # fmt: skip
    write_parquet(root / "data" / "testmini-00000-of-00001-725687bf7a18d64b.parquet", [row])
    write_parquet(root / "data" / "test-00000-of-00001-6b81bd7f7e2065e6.parquet",
                  [{**row, "pid": "8", "answer": ""}])  # fmt: skip
    return Expected({"testmini": 1}, left_out=1)


def mathverse(root: Path) -> Expected:
    base = {
        "problem_index": "1", "question_type": "multi-choice", "answer": "B", "query_wo": "",
        "metadata": {"split": "testmini", "subject": "Plane Geometry", "subfield": "Angle"},
        "query_cot": "",
    }  # fmt: skip
    choices = "Find it.\nChoices:\nA:1\nB:2\nC:3\nD:4"
    seen = {**base, "sample_index": "1", "problem_version": "Text Dominant", "question": choices,
            "image": "images_version_1-4/image_1.png"}  # fmt: skip
    unseen = {**base, "sample_index": "2", "problem_version": "Text Only", "question": choices,
              "image": ""}  # fmt: skip
    picture(root / "images" / "images_version_1-4" / "image_1.png")
    write_json(root / "testmini.json", [seen])
    write_json(root / "testmini_text_only.json", [unseen])
    return Expected({"testmini": 1, "testmini_text_only": 1})


def mathverse_hub(root: Path) -> Expected:
    row = {
        "sample_index": "3", "problem_index": "3", "problem_version": "Vision Only",
        "question": "", "image": hub_picture(3), "answer": "12", "question_type": "free-form",
        "metadata": {"subject": "Functions"}, "query_wo": "", "query_cot": "",
    }  # fmt: skip
    write_parquet(root / "testmini.parquet", [row])
    return Expected({"testmini": 1})


def math_vision(root: Path) -> Expected:
    base = {"level": 3, "subject": "algebra", "options": [], "solution": None}
    rows = [
        {**base, "id": "4", "question": "What is x? <image1>", "answer": "5",
         "solution": "Since $2x=10$, we have $x=10/2=5$.", "image": "images/4.jpg"},
        {**base, "id": "5", "question": "Which? <image1>", "options": ["A", "B", "C", "D", "E"],
         "answer": "C", "image": "images/5.jpg"},
        {**base, "id": "6", "question": "Gone? <image1>", "answer": "1", "image": "images/6.jpg"},
    ]  # fmt: skip
    write_lines(root / "data" / "testmini.jsonl", rows)
    for n in (4, 5):
        picture(root / "images" / f"{n}.jpg", n)
    return Expected({"testmini": 2}, left_out=1)


def math_vision_hub(root: Path) -> Expected:
    row = {"id": "9", "question": "x? <image1>", "options": [], "image": "images/9.jpg",
           "decoded_image": hub_picture(9), "answer": "7", "solution": None, "level": 1,
           "subject": "counting"}  # fmt: skip
    write_parquet(root / "data" / "test-00000-of-00001-3532b8d3f1b4047a.parquet", [row])
    return Expected({"test": 1})


def mmmu(root: Path) -> Expected:
    blank = {f"image_{n}": None for n in range(2, 8)}
    base = {**blank, "image_1": hub_picture(1), "img_type": "['Tables']", "subfield": "Audit",
            "topic_difficulty": "Easy", "explanation": ""}  # fmt: skip
    choice = {**base, "id": "validation_Math_1", "question": "<image 1> Which?",
              "options": "['one', 'two']", "answer": "B",
              "question_type": "multiple-choice"}  # fmt: skip
    opened = {**base, "id": "validation_Math_2", "question": "<image 1> How much?", "options": "[]",
              "answer": "24", "question_type": "open",
              "explanation": r"\(2 \cdot 12 = 24\)"}  # fmt: skip
    hidden = {**choice, "id": "test_Math_1", "answer": "?"}
    write_parquet(root / "Math" / "validation-00000-of-00001.parquet", [choice, opened])
    write_parquet(root / "Math" / "test-00000-of-00001.parquet", [hidden])
    return Expected({"validation": 2}, left_out=1)


def mm_eureka(root: Path) -> Expected:
    prefix = "inspire/hdd/dataset/report_data"
    turn = {"role": "user", "content": "Think first.\nQuestion:\nAs in the figure, find $x$."}
    row = {"id": "k1", "conversations": [turn], "answer": r"$\frac{1}{2}$",
           "image_urls": [f"{prefix}/K12/a.png"]}  # fmt: skip
    other = {**row, "id": "m1", "image_urls": [f"{prefix}/MMPR/images/ai2d/b.png"]}
    write_lines(root / "dataset.jsonl", [row, other])
    picture(root / "K12" / "a.png")
    return Expected({"train": 1})


def mm_eureka_hub(root: Path) -> Expected:
    row = {"id": "1", "question": "<image>What is the area?", "answer": "12", "subject": "math",
           "image": hub_picture(1)}  # fmt: skip
    write_parquet(root / "data" / "train-00000-of-00001.parquet", [row])
    return Expected({"train": 1})


def clevr_counting(root: Path) -> Expected:
    def question(index: int, last: str, answer: str) -> dict[str, Any]:
        program = [{"inputs": [], "function": "scene", "value_inputs": []},
                   {"inputs": [0], "function": last, "value_inputs": []}]  # fmt: skip
        return {"image_index": 0, "program": program, "question_index": index, "split": "train",
                "image_filename": "CLEVR_train_000000.png", "question_family_index": 2,
                "answer": answer, "question": f"How many things, part {index}?"}  # fmt: skip

    questions = [question(0, "count", "4"), question(1, "exist", "yes"), question(2, "count", "0")]
    file = {"info": {"split": "train", "license": "CC BY 4.0"}, "questions": questions}
    write_json(root / "questions" / "CLEVR_train_questions.json", file)
    picture(root / "images" / "train" / "CLEVR_train_000000.png")
    return Expected({"train": 2})


def clevr_counting_hub(root: Path) -> Expected:
    row = {"image": hub_picture(1), "problem": "How many items are there in the image?",
           "solution": "<answer> 3 </answer>"}  # fmt: skip
    write_parquet(root / "data" / "train-00000-of-00001.parquet", [row])
    return Expected({"train": 1})


def clevr_counting_lines(root: Path) -> Expected:
    row = {"image_path": "./images/superCLEVR_new_1.png", "question": "How many?",
           "ground_truth": 5}  # fmt: skip
    write_lines(root / "superclevr_test200_counting_problems.jsonl", [row])
    picture(root / "images" / "superCLEVR_new_1.png")
    return Expected({"test": 1})


def refcoco(root: Path) -> Expected:
    def ref(id: int, split: str) -> dict[str, Any]:
        sentences = [
            {"sent_id": 10 * id + n, "raw": text, "sent": text, "tokens": text.split()}
            for n, text in enumerate((f"left one {id}", f"the left {id}"))
        ]
        return {"ref_id": id, "ann_id": 100 + id, "image_id": id, "category_id": 1, "split": split,
                "file_name": f"COCO_train2014_00000000000{id}_{id}.jpg", "sentences": sentences,
                "sent_ids": [s["sent_id"] for s in sentences]}  # fmt: skip

    refs = [ref(1, "train"), ref(2, "testA")]
    pickled = pickle.dumps(refs, protocol=2)
    write(root / "refcoco" / "refs(unc).p", pickled)
    images = [
        {"id": n, "file_name": f"COCO_train2014_00000000000{n}.jpg", "height": 48, "width": 64}
        for n in (1, 2, 3)
    ]
    annotations = [
        {"id": 100 + n, "image_id": n, "category_id": 1, "bbox": [4.5, 6.0, 20.0, 30.0],
         "area": 600.0, "iscrowd": 0, "segmentation": [[0, 0, 1, 1, 1, 0]]}
        for n in (3, 2, 1)
    ]  # fmt: skip
    instances = {"info": {}, "images": images, "licenses": [], "annotations": annotations,
                 "categories": [{"id": 1, "name": "person"}]}  # fmt: skip
    write_json(root / "refcoco" / "instances.json", instances)
    for n in (1, 2):
        picture(root / "train2014" / f"COCO_train2014_00000000000{n}.jpg", n)
    return Expected({"refcoco_train": 2, "refcoco_testA": 2})


def coco_few_shot(root: Path) -> Expected:
    images, annotations = [], []
    for n in range(1, 9):
        images.append({"id": n, "file_name": f"{n:012d}.jpg", "height": 48, "width": 64})
        for k, category in enumerate((1, 1, 18) if n < 7 else (1,)):
            annotations.append({"id": 10 * n + k, "image_id": n, "category_id": category,
                                "bbox": [4.0 * k, 2.0, 3.5, 20.0], "area": 70.0,
                                "iscrowd": int(n >= 7), "segmentation": []})  # fmt: skip
        picture(root / "val2017" / f"{n:012d}.jpg", n)
        picture(root / "train2017" / f"{n:012d}.jpg", 20 + n)
    categories = [{"id": 1, "name": "person", "supercategory": "person"},
                  {"id": 18, "name": "dog", "supercategory": "animal"}]  # fmt: skip
    instances = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        write_json(root / "annotations" / f"instances_{split}2017.json", instances)
    # Of 8 pictures with people, which all count as drawn in val, two have crowds only.
    crowds = 2
    train = 8 - TRAIN_CROWDS
    return Expected({"train": train, "val": 8 + 6 - crowds}, left_out=crowds + TRAIN_CROWDS)


TRAIN_CROWDS = 1
"""Pictures of crowds among the four that seed 0 draws of the class person."""


def lvis_few_shot(root: Path) -> Expected:
    images = [
        {"id": n, "coco_url": f"http://images.cocodataset.org/{folder}2017/{n:012d}.jpg",
         "height": 48, "width": 64, "neg_category_ids": [], "not_exhaustive_category_ids": []}
        for n, folder in ((1, "train"), (2, "val"))
    ]  # fmt: skip
    annotations = [{"id": n, "image_id": n, "category_id": 3, "bbox": [1.5, 2, 10, 20],
                    "area": 200.0, "segmentation": []} for n in (1, 2)]  # fmt: skip
    categories = [{"id": 3, "name": "alarm_clock", "frequency": "f", "synset": "alarm_clock.n.01"}]
    file = {"images": images, "annotations": annotations, "categories": categories}
    write_json(root / "lvis_v1_train.json", file)
    picture(root / "train2017" / f"{1:012d}.jpg", 1)
    picture(root / "val2017" / f"{2:012d}.jpg", 2)
    return Expected({"train": 2})


def visual_rft_detection(root: Path) -> Expected:
    ask = "Detect all objects belonging to the category 'cat' in the image."
    position = "<answer>[{'Position': [10, 20, 500, 600], 'Confidence': 1}]</answer>"
    rows = [{"image": hub_picture(n), "problem": ask, "solution": solution}
            for n, solution in ((1, position), (2, "<answer>No Objects</answer>"))]  # fmt: skip
    write_parquet(root / "data" / "train-00000-of-00001.parquet", rows)
    return Expected({"train": 2})


def visual_rft_classes(root: Path) -> Expected:
    ask = "This is an image containing a plant. Identify the species."
    rows = [{"image": hub_picture(n), "problem": ask, "solution": f"<answer> {name} </answer>"}
            for n, name in enumerate(("pink primrose", "rose", "rose"))]  # fmt: skip
    write_parquet(root / "data" / "train-00000-of-00001.parquet", rows)
    return Expected({"train": 3})


def shanghaitech(root: Path) -> Expected:
    for split, heads in (("train", 3), ("test", 25)):
        folder = root / "part_A" / f"{split}_data"
        picture(folder / "images" / "IMG_1.jpg", heads)
        heads_at = np.random.default_rng(heads).uniform(0, 48, (heads, 2))
        info = np.empty((1, 1), dtype=object)
        kinds = [("location", "O"), ("number", "O")]
        info[0, 0] = np.array([[(heads_at, np.array([[heads]]))]], dtype=kinds)
        truth = folder / "ground_truth" / "GT_IMG_1.mat"
        truth.parent.mkdir(parents=True)
        scipy.io.savemat(truth, {"image_info": info})
    picture(root / "part_A" / "test_data" / "images" / "IMG_2.jpg")
    return Expected({"part_A_train": 1, "part_A_test": 1}, left_out=1)


def shanghaitech_hub(root: Path) -> Expected:
    row = {"image": hub_picture(1), "problem": "How many people?", "solution": 137}
    write_parquet(root / "data" / "train-00000-of-00001.parquet", [row])
    return Expected({"train": 1})


def kadid(root: Path) -> Expected:
    names = [("I01_01_03.png", "I01.png", 3.2), ("I01_04_01.png", "I01.png", 4.5),
             ("I02_09_05.png", "I02.png", 1.1)]  # fmt: skip
    lines = [f"{dist},{ref},{score},0.5" for dist, ref, score in names]
    write(root / "dmos.csv", "\n".join(["dist_img,ref_img,dmos,var", *lines]) + "\n")
    for n, (name, _, _) in enumerate(names):
        picture(root / "images" / name, n)
    return Expected({"train": 5})


def koniq(root: Path) -> Expected:
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"
    lines = ["1.jpg,0,0,25,73,7,105,79.78,0.527,training", "2.jpg,10,0,0,0,0,10,1.0,0.0,test"]
    write(root / "koniq10k_distributions_sets.csv", "\n".join([header, *lines]) + "\n")
    for n in (1, 2):
        picture(root / "1024x768" / f"{n}.jpg", n)
    return Expected({"train": 1, "test": 1})


def koniq_scores(root: Path) -> Expected:
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore"
    line = "1.jpg,0,0,25,73,7,105,3.83,0.527,70.1"
    write(root / "koniq10k_scores_and_distributions.csv", f"{header}\n{line}\n")
    picture(root / "512x384" / "1.jpg", 1)
    return Expected({"train": 1})


def omnimedvqa(root: Path) -> Expected:
    def question(n: int, answer: str) -> dict[str, Any]:
        return {"dataset": "Drawn", "question_id": f"Drawn_{n:04d}", "gt_answer": answer,
                "question_type": "Modality Recognition", "image_path": f"Images/Drawn/{n}.png",
                "question": "What imaging modality was used?", "option_A": "MRI",
                "option_B": "CT", "option_C": "X-Ray", "option_D": "PET",
                "modality_type": "CT(Computed Tomography)"}  # fmt: skip

    rows = [question(1, "CT"), question(2, "PET"), question(3, "Ultrasound")]
    write_json(root / "QA_information" / "Open-access" / "Drawn.json", rows)
    for n in (1, 2, 3):
        picture(root / "Images" / "Drawn" / f"{n}.png", n)
    return Expected({"train": 2}, left_out=1)


def avqa(root: Path) -> Expected:
    def row(id: int) -> dict[str, Any]:
        return {"id": id, "video_name": f"clip{id}", "video_id": id, "answer": 1,
                "question_text": "What is making the sound in the video?",
                "multi_choice": ["dog", "train", "rain", "horn"], "question_type": "Come From",
                "question_relation": "Sound", "dataset_name": "AVQA",
                "audio_path": f"./Joysw909/AVQA/VGG10000/clip{id}.wav"}  # fmt: skip

    write_lines(root / "train_r1aqa_line.json", [row(183), row(184)])
    sound(root / "VGG10000" / "clip183.wav")
    return Expected({"train": 1}, left_out=1)


def avqa_r1(root: Path) -> Expected:
    for n, split in enumerate(("train", "valid")):
        row = {"problem_id": n, "problem": "What is it?", "data_type": "image_audio",
               "problem_type": "multiple choice", "options": ["A. a dog", "B. a train"],
               "solution": "<answer>B</answer>", "data_source": "AVQA",
               "path": {"image": "./images/1.jpg", "audio": "./audios/1.wav"}}  # fmt: skip
        folder = root / "AVQA_R1" / split
        write_json(folder / f"omni_rl_format_{split}.json", [row])
        picture(folder / "images" / "1.jpg", n)
        sound(folder / "audios" / "1.wav", n)
    return Expected({"train": 1, "valid": 1})


def mmau(root: Path) -> Expected:
    base = {"question": "What is heard?", "choices": ["Man", "Woman"], "answer": "Man",
            "dataset": "AudioSet", "task": "sound", "split": "test-mini", "category": "Reasoning",
            "sub-category": "Acoustic Source Inference", "difficulty": "easy"}  # fmt: skip
    rows = [{**base, "id": x, "audio_id": f"./test-mini-audios/{x}.wav"} for x in "ab"]
    write_json(root / "mmau-test-mini.json", rows)
    hidden = {k: v for k, v in rows[0].items() if k != "answer"}
    write_json(root / "mmau-test.json", [{**hidden, "id": "c"}])
    for n, row in enumerate(rows):
        sound(root / row["audio_id"], n)
    return Expected({"test-mini": 2}, left_out=1)


def charades_sta(root: Path) -> Expected:
    write(root / "charades_sta_train.txt", "AO8RW 0.0 1.5##a person is putting a book down.\n")
    write(root / "charades_sta_test.txt", "3MSZA 0.5 2.4##person turn a light on.\nbroken\n")
    write(root / "Charades_v1_test.csv", "id,subject,length\n3MSZA,HR43,2.0\n")
    for name in ("AO8RW", "3MSZA"):
        video(root / "Charades_v1_480" / f"{name}.mp4")
    return Expected({"train": 1, "test": 1}, left_out=1)


def got10k(root: Path) -> Expected:
    for name, frames in (("GOT-10k_Train_000001", 15), ("GOT-10k_Train_000002", 5)):
        folder = root / "train" / name
        for n in range(frames):
            picture(folder / f"{n + 1:08d}.jpg", n, (80, 60))
        boxes = [f"{n}.0000,6.0000,40.0000,60.0000" for n in range(frames)]
        write(folder / "groundtruth.txt", "\n".join(boxes) + "\n")
        write(folder / "absence.label", "0\n" * frames)
        write(folder / "meta_info.ini", "[METAINFO]\nurl: x\nobject_class: bear\n")
    return Expected({"train": 1}, left_out=1)


def vsi_bench(root: Path) -> Expected:
    base = {"dataset": "scannet", "scene_name": "scene0011_00"}
    rows = [
        {**base, "id": 0, "question_type": "object_counting", "question": "How many tables?",
         "ground_truth": "4", "options": None},
        {**base, "id": 1, "question_type": "object_rel_direction_easy", "question": "Left?",
         "ground_truth": "A", "options": ["A. left", "B. right"]},
    ]  # fmt: skip
    write_lines(root / "test.jsonl", rows)
    video(root / "scannet" / "scene0011_00.mp4")
    return Expected({"test": 2})


def mvbench(root: Path) -> Expected:
    plain = {"video": "1.webm", "question": "What happened?", "candidates": ["a", "b"],
             "answer": "b"}  # fmt: skip
    bounded = {**plain, "video": "ZS9XR.mp4", "start": 0.5, "end": 1.5}
    frames = {**plain, "video": "castle_01", "start": 0, "end": 1.0}
    write_json(root / "json" / "action_antonym.json", [plain])
    write_json(root / "json" / "action_sequence.json", [bounded])
    write_json(root / "json" / "episodic_reasoning.json", [frames])
    video(root / "video" / "ssv2_video" / "1.webm")
    video(root / "video" / "star" / "Charades_v1_480" / "ZS9XR.mp4")
    for n in range(1, 7):
        picture(root / "video" / "tvqa" / "frames_fps3_hq" / "castle_01" / f"{n:05d}.jpg", n)
    return Expected({"test": 3})


def video_mme(root: Path) -> Expected:
    row = {"video_id": "001", "duration": "short", "domain": "Knowledge", "url": "https://x",
           "sub_category": "Humanity", "videoID": "fFjv93ACGo8", "question_id": "001-1",
           "task_type": "Counting Problem", "question": "How many?", "answer": "C",
           "options": ["A. 1.", "B. 2.", "C. 3.", "D. 4."]}  # fmt: skip
    gone = {**row, "videoID": "gone", "question_id": "002-1"}
    write_parquet(root / "videomme" / "test-00000-of-00001.parquet", [row, gone])
    video(root / "data" / "fFjv93ACGo8.mp4")
    return Expected({"test": 1}, left_out=1)


def ego_st(root: Path) -> Expected:
    ask = "Based on this video, what directions do you need? Options: A. Turn left, B. Walk on"
    row = {"problem": ask, "solution": "<think>hm</think> <answer>B</answer>",
           "video": "/home/authors/videos/walk.mp4", "original_question": ask,
           "original_answer": "B"}  # fmt: skip
    write_lines(root / "ST-R1" / "r1_data" / "total_test_mcq_63.jsonl", [row])
    video(root / "videos" / "walk.mp4")
    return Expected({"test": 1})


def android_control(root: Path) -> Expected:
    steps = [{"action_type": "click", "x": 20, "y": 30},
             {"action_type": "scroll", "direction": "down"},
             {"action_type": "input_text", "text": "hello"},
             {"action_type": "open_app", "app_name": "PocketBook"},
             {"action_type": "navigate_back"}]  # fmt: skip
    rows = [{"image": f"episode_140-screenshot_{n}.png", "gt": gt, "task": f"do step {n}"}
            for n, gt in enumerate(steps)]  # fmt: skip
    write_json(root / "dataset" / "ac_test.json", rows)
    for n, row in enumerate(rows):
        picture(root / "images" / str(row["image"]), n)
    return Expected({"test": 5})


def android_control_episodes(root: Path) -> Expected:
    actions = [{"action_type": "click", "x": 20, "y": 30},
               {"action_type": "scroll", "direction": "down"},
               {"action_type": "long_press", "x": 3, "y": 4},
               {"action_type": "wait"}]  # fmt: skip
    episodes = []
    for number in (7, 8):
        pictures = [picture(root / f"{number}-{n}.png", 10 * number + n) for n in range(5)]
        episodes.append({
            "episode_id": [number], "goal": [b"find the book"],
            "actions": [json.dumps(action).encode() for action in actions],
            "step_instructions": [f"do {n} of {number}".encode() for n in range(3)] + [b""],
            "screenshots": [file.read_bytes() for file in pictures],
        })  # fmt: skip
        for file in pictures:
            file.unlink()
    write_tfrecord(root / "android_control-00000-of-00001", episodes)
    write_json(root / "splits.json", {"train": [8], "test": [7]})
    return Expected({"train": 3, "test": 3}, left_out=2)


def screenspot(root: Path) -> Expected:
    row = {"img_filename": "pc_1.png", "bbox": [5, 6, 10, 8], "instruction": "close the window",
           "data_type": "icon", "data_source": "windows"}  # fmt: skip
    write_json(root / "screenspot_desktop.json", [row])
    picture(root / "screenspot_imgs" / "pc_1.png")
    return Expected({"test": 1})


def screenspot_hub(root: Path) -> Expected:
    row = {"file_name": "pc_1.png", "bbox": [0.1, 0.1, 0.5, 0.4], "instruction": "close",
           "data_type": "icon", "data_source": "windows", "image": hub_picture(1)}  # fmt: skip
    write_parquet(root / "data" / "test-00000-of-00001-42c7b3bcb2d8e5a0.parquet", [row])
    return Expected({"test": 1})


def screenspot_v2(root: Path) -> Expected:
    row = {"img_filename": "mobile_1.png", "bbox": [5, 6, 30, 8], "instruction": "go back",
           "data_type": "text", "data_source": "ios"}  # fmt: skip
    write_json(root / "screenspot_mobile_v2.json", [row])
    picture(root / "screenspotv2_image" / "mobile_1.png")
    return Expected({"test": 1})


def screenspot_pro(root: Path) -> Expected:
    row = {"id": "blender_windows_0", "img_filename": "blender_windows/s.png", "ui_type": "icon",
           "bbox": [5, 6, 10, 9], "img_size": [64, 48], "instruction": "add a cube",
           "instruction_cn": "x", "group": "CAD", "application": "blender",
           "platform": "windows"}  # fmt: skip
    write_json(root / "annotations" / "blender_windows.json", [row])
    picture(root / "images" / "blender_windows" / "s.png")
    return Expected({"test": 1})


def gui_r1(root: Path) -> Expected:
    base = {"history": "None", "task_type": "high", "gt_input_text": "no input text",
            "group": "android", "ui_type": "icon", "instruction": "open the menu"}  # fmt: skip
    click = {**base, "id": "c", "image": hub_picture(1), "gt_bbox": [0.1, 0.2, 0.5, 0.6],
             "gt_action": "click"}  # fmt: skip
    pixels = {**click, "image": hub_picture(2), "gt_bbox": [20.0, 30.0]}
    write_parquet(root / "train.parquet", [click])
    write_parquet(root / "screenspot_test.parquet", [pixels])
    return Expected({"screenspot_test": 1, "train": 1})


def chart_qa(root: Path) -> Expected:
    folder = root / "ChartQA Dataset" / "train"
    row = {"imgname": "41699051005347.png", "query": "What is the value in 2010?", "label": "12"}
    write_json(folder / "train_human.json", [row])
    write_json(folder / "train_augmented.json", [{**row, "query": "Which is largest?",
                                                  "label": "Food"}])  # fmt: skip
    picture(folder / "png" / "41699051005347.png")
    return Expected({"train": 2})


def chart_qa_hub(root: Path) -> Expected:
    row = {"image": hub_picture(1), "query": "How many?", "label": ["14"], "human_or_machine": 0}
    write_parquet(root / "data" / "val-00000-of-00001-0f11003c77497969.parquet", [row])
    return Expected({"val": 1})


def spider(root: Path) -> Expected:
    good = {"db_id": "ships", "question": "How many ships?", "query": "SELECT count(*) FROM ship",
            "query_toks": ["SELECT"], "sql": {"from": {}}}  # fmt: skip
    broken = {**good, "question": "Which?", "query": "SELECT name FROM nowhere"}
    write_json(root / "train_spider.json", [good, broken])
    write_json(root / "dev.json", [{**good, "question": "Ships?"}])
    database(root / "database" / "ships" / "ships.sqlite")
    return Expected({"train": 1, "dev": 1}, left_out=1)


def bird(root: Path) -> Expected:
    row = {"question_id": 0, "db_id": "ships", "question": "Ships above 50?", "evidence": "tons",
           "SQL": "SELECT name FROM ship WHERE tons > 50", "difficulty": "simple"}  # fmt: skip
    write_json(root / "dev_20240627" / "dev.json", [row])
    database(root / "dev_20240627" / "dev_databases" / "ships" / "ships.sqlite")
    return Expected({"dev": 1})


def bfcl(root: Path) -> Expected:
    function = {"name": "area", "description": "Area.", "parameters": {
        "type": "dict", "required": ["width"],
        "properties": {"width": {"type": "integer", "description": "w"}}}}  # fmt: skip
    ask = [[{"role": "user", "content": "Area of width 3?"}]]
    simple = {"id": "simple_python_0", "question": ask, "function": [function]}
    none = {"id": "irrelevance_0", "question": [[{"role": "user", "content": "Sing!"}]],
            "function": [function]}  # fmt: skip
    write_lines(root / "BFCL_v4_simple_python.json", [simple, {**simple, "id": "simple_python_1"}])
    write_lines(root / "BFCL_v4_irrelevance.json", [none])
    write_lines(root / "BFCL_v4_simple_java.json", [simple])
    answer = {"id": "simple_python_0", "ground_truth": [{"area": {"width": [3]}}]}
    write_lines(root / "possible_answer" / "BFCL_v4_simple_python.json", [answer])
    return Expected({"test": 2}, left_out=1)


def toolrl(root: Path) -> Expected:
    call = '{"name": "Weather", "parameters": {"city": "Bergen"}}'
    gold = f"<think> hm </think>\n<tool_call>\n{call}\n</tool_call>"
    row = {"data_source": "rlla", "ability": "math",
           "prompt": [{"role": "system", "content": "Tools: Weather"},
                      {"role": "user", "content": "Weather in Bergen?"}],
           "reward_model": {"ground_truth": gold, "style": "rule"},
           "extra_info": {"index": 0, "split": "train"}}  # fmt: skip
    write_parquet(root / "dataset" / "rlla_4k" / "train.parquet", [row])
    return Expected({"train": 1})


def reasonseg(root: Path) -> Expected:
    shapes = [
        {"label": "target", "points": [[5, 5], [40, 5], [40, 30], [5, 30]], "group_id": None},
        {"label": "ignore", "points": [[50, 5], [60, 5], [60, 20]], "group_id": None},
    ]
    fields = {"shapes": shapes, "text": ["the food that keeps", "what lasts"], "is_sentence": True,
              "difficulty_score": [2.0, 6.5], "uncertainty_score": 0.4}  # fmt: skip
    write_json(root / "train" / "1001.json", fields)
    picture(root / "train" / "1001.jpg", 1)
    latin = '{"shapes": [{"label": "target", "points": [[5,5],[40,5],[40,30]]}], ' \
            '"text": ["the caf\u00e9"], "is_sentence": false}'  # fmt: skip
    write(root / "val" / "2002.json", latin.encode("cp1252"))
    picture(root / "val" / "2002.jpg", 2)
    return Expected({"train": 2, "val": 1})


def gsm8k(root: Path) -> Expected:
    row = {"question": "Half of 48?", "answer": "It is 48/2 = <<48/2=24>>24.\n#### 24"}
    write_lines(root / "train.jsonl", [row, {**row, "answer": "24"}])
    write_lines(root / "test.jsonl", [{**row, "question": "And 1,000?", "answer": "#### 1,000"}])
    return Expected({"train": 1, "test": 1}, left_out=1)


def gsm8k_hub(root: Path) -> Expected:
    row = {"question": "Half of 48?", "answer": "48/2=<<48/2=24>>24\n#### 24"}
    write_parquet(root / "main" / "train-00000-of-00001.parquet", [row])
    write_parquet(root / "socratic" / "train-00000-of-00001.parquet", [row])
    return Expected({"train": 1})


def hendrycks_math(root: Path) -> Expected:
    row = {"problem": "What is $2x$ for $x=1/4$?", "level": "Level 2", "type": "Algebra",
           "solution": r"$2x = 2/4 = 1/2$, so $\boxed{\frac{1}{2}}$."}  # fmt: skip
    write_json(root / "MATH" / "train" / "algebra" / "1.json", row)
    write_json(root / "MATH" / "train" / "algebra" / "10.json", {**row, "solution": "None."})
    write_json(root / "MATH" / "test" / "algebra" / "2.json", row | {"problem": "Again?"})
    return Expected({"train": 1, "test": 1}, left_out=1)


def hendrycks_math_hub(root: Path) -> Expected:
    row = {"problem": "1+1?", "level": "Level 1", "type": "Algebra", "solution": r"\boxed{2}"}
    write_parquet(root / "algebra" / "train-00000-of-00001.parquet", [row])
    write_parquet(root / "geometry" / "test-00000-of-00001.parquet", [{**row, "problem": "x?"}])
    return Expected({"train": 1, "test": 1})


def hendrycks_math_lines(root: Path) -> Expected:
    row = {"problem": "1+1?", "answer": "2", "subject": "Algebra", "level": 1,
           "solution": r"So \boxed{2}.", "unique_id": "test/algebra/1.json"}  # fmt: skip
    write_lines(root / "test.jsonl", [row])
    return Expected({"test": 1})


def musique(root: Path) -> Expected:
    row = {
        "id": "2hop__1_2", "question": "Where was the painter of the ship born?",
        "paragraphs": [{"idx": 0, "title": "The ship", "is_supporting": True,
                        "paragraph_text": "Ida Ek painted it."},
                       {"idx": 1, "title": "Ida Ek", "is_supporting": True,
                        "paragraph_text": "She was born in Bergen."}],
        "question_decomposition": [
            {"id": 1, "question": "The ship >> painter", "answer": "Ida Ek",
             "paragraph_support_idx": 0},
            {"id": 2, "question": "#1 >> born in", "answer": "Bergen", "paragraph_support_idx": 1}],
        "answer": "Bergen", "answer_aliases": ["Bjorgvin"], "answerable": True,
    }  # fmt: skip
    folder = root / "data"
    write_lines(folder / "musique_ans_v1.0_train.jsonl", [row])
    hidden = {k: v for k, v in row.items() if k not in ("answer", "question_decomposition")}
    write_lines(folder / "musique_ans_v1.0_test.jsonl", [hidden])
    wrong = {**row, "id": "2hop__3_4", "answerable": False}
    write_lines(folder / "musique_ans_v1.0_dev.jsonl", [{**row, "id": "2hop__5_6"}, wrong])
    return Expected({"train": 1, "dev": 1}, left_out=2)


def geoqa(root: Path) -> Expected:
    row = {"image": hub_picture(1), "problem": "How wide is the angle?",
           "solution": "<answer> 145\u00b0 </answer>"}  # fmt: skip
    prose = {**row, "image": hub_picture(2), "solution": "<answer> cannot be known </answer>"}
    write_parquet(root / "data" / "train-00000-of-00001.parquet", [row, prose])
    test = {"image_path": "./images/3.png", "question": "Angle?", "ground_truth": "60\u00b0"}
    write_lines(root / "geoqa_test_prompts.jsonl", [test])
    picture(root / "images" / "3.png", 3)
    return Expected({"train": 1, "test": 1}, left_out=1)


def super_clevr(root: Path) -> Expected:
    def row(scene: int, question: str, answer: Any) -> dict[str, Any]:
        picture(root / "images" / f"superCLEVR_new_{scene:06}.png", scene)
        return {"image_filename": f"superCLEVR_new_{scene:06}.png", "image_index": scene,
                "question": question, "answer": answer, "question_hash": "x"}  # fmt: skip

    questions = [
        row(7, "How many buses are there?", 3), row(7, "Is there a bus?", True),
        row(20_000, "How many cars are there?", 0), row(29_999, "How many wheels?", 4),
    ]  # fmt: skip
    write_json(root / "superCLEVR_questions_30k.json", {"info": {}, "questions": questions})
    return Expected({"train": 1, "val": 1, "test": 1})


def next_gqa(root: Path) -> Expected:
    head = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    row = "42,60,64,48,why did it stop,it was red,{},CW,it fell,it was red,a dog,rain,a car\n"
    write(root / "test.csv", head + row.format(1) + row.format(2))
    write(root / "val.csv", head + row.format(3).replace("it was red,{", "x").replace("42", "43"))
    spans = {"duration": 2, "fps": 30.0, "location": {"1": [[0.2, 1.1], [1.5, 1.9]], "3": [[0, 1]]}}
    write_json(root / "gsub_test.json", {"42": spans})
    write_json(root / "gsub_val.json", {"43": spans})
    write_json(root / "map_vid_vidorID.json", {"42": "1164/42", "43": "1164/43"})
    for name in ("42", "43"):
        video(root / "videos" / "1164" / f"{name}.mp4")
    return Expected({"test": 1, "val": 1}, left_out=1)


def videohallu(root: Path) -> Expected:
    test = "RowID,Model,video_path,Prompt,Question,Answer,Categorization-1,Categorization-2\n"
    test += "1,Sora,videos/a.mp4,A ball falls,Does the ball fall?,Yes,Physics,Gravity\n"
    write(root / "synthetic_data.csv", test)
    row = {"problem_id": 1.0, "data_type": "video", "problem_type": "free-form", "options": [],
           "path": "./videos/b.mp4", "problem": "Is it red?", "solution": "<answer>No</answer>",
           "data_source": "x"}  # fmt: skip
    write_json(root / "train.json", [row, {**row, "problem": None}])
    for name in ("a", "b"):
        video(root / "videos" / f"{name}.mp4")
    return Expected({"test": 1, "train": 1}, left_out=1)


def mmar(root: Path) -> Expected:
    row = {"id": "x1", "audio_path": "./audio/x1.wav", "question": "Who speaks first?",
           "choices": ["a child", "a man"], "answer": "a man", "modality": "speech",
           "category": "Perception Layer", "sub-category": "Speaker Analysis", "language": "en",
           "source": "youtube", "url": "u", "timestamp": "00:00,00:10"}  # fmt: skip
    write_json(root / "MMAR-meta.json", [row, {**row, "id": "x2", "audio_path": "./audio/no.wav"}])
    sound(root / "audio" / "x1.wav", 1)
    return Expected({"test": 1}, left_out=1)


def trance(root: Path) -> Expected:
    row = {"id": 0, "image": ["trance/0_a.png", "trance/0_b.png"], "problem": "What changed?",
           "solution": "<answer>change_color(0, 'red')</answer>"}  # fmt: skip
    write_json(root / "train_jsons" / "Trance-train.json", [row, {**row, "solution": "nothing"}])
    write_json(root / "train_jsons" / "Clevr-train.json", [row])
    for n, name in enumerate(("0_a", "0_b")):
        picture(root / "trance" / f"{name}.png", n)
    return Expected({"Trance-train": 1}, left_out=1)


def mulberry(root: Path) -> Expected:
    row = {
        "image_path": "./images/1.png",
        "problem": "<image>How long is AB?",
        "solution": "<answer>4</answer>",
        "key_steps": {"Steps": ["right angle", ["3", "5"]]},
    }
    prose = {**row, "solution": "It cannot be known from the picture, since nothing is given"}
    write_json(root / "r1vl_10k.json", [row, prose])
    picture(root / "images" / "1.png")
    return Expected({"r1vl_10k": 1}, left_out=1)


def blind_test(root: Path) -> Expected:
    rows = [
        {"task": "Touching Circles", "groundtruth": "Yes",
         "prompt": "Are the two circles touching each other? Answer with Yes/No."},
        {"task": "Line Plot Intersections", "groundtruth": "2",
         "prompt": "How many times do the lines touch each other? "
                   "Answer with a number in curly brackets, e.g., {5}."},
        {"task": "Counting Grid - Blank Grids", "groundtruth": "3,4",
         "prompt": "Count the number of rows and columns and answer with numbers in curly "
                   "brackets. For example, rows={5} columns={6}"},
        {"task": "Circled Letter", "groundtruth": "q", "prompt": "Which letter is in the oval?"},
    ]  # fmt: skip
    made = [{**r, "image": hub_picture(n), "metadata": "{}"} for n, r in enumerate(rows)]
    write_parquet(root / "data" / "valid-00000-of-00001.parquet", made)
    return Expected({"valid": 4})


def database(path: Path) -> None:
    """A table of three ships."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE ship (name TEXT, tons REAL)")
        rows = [("Fram", 402), ("Gjoa", 47), ("Maud", 292)]
        connection.executemany("INSERT INTO ship VALUES (?, ?)", rows)
    connection.close()


LAYOUTS: dict[str, Callable[[Path], Expected]] = {
    "android_control": android_control,
    "android_control@episodes": android_control_episodes,
    "avqa": avqa,
    "avqa_r1": avqa_r1,
    "bfcl": bfcl,
    "bird": bird,
    "blind_test": blind_test,
    "charades_sta": charades_sta,
    "chart_qa": chart_qa,
    "chart_qa@hub": chart_qa_hub,
    "clevr_counting": clevr_counting,
    "clevr_counting@hub": clevr_counting_hub,
    "clevr_counting@lines": clevr_counting_lines,
    "coco_few_shot": coco_few_shot,
    "ego_st": ego_st,
    "geometry3k": geometry3k,
    "geometry3k@hub": geometry3k_hub,
    "geoqa": geoqa,
    "got10k": got10k,
    "gsm8k": gsm8k,
    "gsm8k@hub": gsm8k_hub,
    "gui_r1": gui_r1,
    "hendrycks_math": hendrycks_math,
    "hendrycks_math@hub": hendrycks_math_hub,
    "hendrycks_math@lines": hendrycks_math_lines,
    "kadid": kadid,
    "koniq": koniq,
    "koniq@scores": koniq_scores,
    "lvis_few_shot": lvis_few_shot,
    "math_vision": math_vision,
    "math_vision@hub": math_vision_hub,
    "mathverse": mathverse,
    "mathverse@hub": mathverse_hub,
    "mathvista": mathvista,
    "mathvista@hub": mathvista_hub,
    "mm_eureka": mm_eureka,
    "mm_eureka@hub": mm_eureka_hub,
    "mmar": mmar,
    "mmau": mmau,
    "mmmu": mmmu,
    "mulberry": mulberry,
    "musique": musique,
    "mvbench": mvbench,
    "next_gqa": next_gqa,
    "omnimedvqa": omnimedvqa,
    "reasonseg": reasonseg,
    "refcoco": refcoco,
    "screenspot": screenspot,
    "screenspot@hub": screenspot_hub,
    "screenspot_pro": screenspot_pro,
    "screenspot_v2": screenspot_v2,
    "shanghaitech": shanghaitech,
    "shanghaitech@hub": shanghaitech_hub,
    "spider": spider,
    "super_clevr": super_clevr,
    "toolrl": toolrl,
    "trance": trance,
    "video_mme": video_mme,
    "videohallu": videohallu,
    "visual_rft_classes": visual_rft_classes,
    "visual_rft_detection": visual_rft_detection,
    "vsi_bench": vsi_bench,
}
