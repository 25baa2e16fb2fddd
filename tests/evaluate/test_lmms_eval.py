"""lmms-eval asks a checkpoint through mmrl and finds the same number. Needs the extra lmms-eval."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lmms_eval", reason="needs lmms-eval: pip install 'mmrl[lmms-eval]'")

from mmrl.api import evaluate
from mmrl.evaluate.lmms_eval.model import sample_of, sampling, until
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import MediaRef, Text

YAML = """
task: digits_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function digits_local.visual
doc_to_text: !function digits_local.text
doc_to_target: count
generation_kwargs: {{max_new_tokens: 8}}
process_results: !function digits_local.results
metric_list: [{{metric: exact, aggregation: mean, higher_is_better: true}}]
"""
FUNCTIONS = """
from PIL import Image

def visual(doc):
    return [Image.open({folder!r} + "/" + doc["image"]).convert("RGB")]

def text(doc, lmms_eval_specific_kwargs=None):
    return {question!r}

def results(doc, answers):
    return {{"exact": float(answers[0].strip() == f"<answer>{{doc['count']}}</answer>")}}
"""


def local_task(folder: Path) -> None:
    """The digit counting task's fixture as a task of lmms-eval."""
    fixture = fixture_path("digit_count")
    task = load_task("digit_count")
    sample = task.sample(next(iter(task.records(fixture))))
    question = "".join(part.text for part in sample.parts if isinstance(part, Text))
    functions = FUNCTIONS.format(folder=str(fixture.parent), question=question)
    (folder / "digits_local.py").write_text(functions)
    (folder / "digits_local.yaml").write_text(YAML.format(data=fixture))


def test_a_benchmark_of_lmms_eval_gives_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["lmms_eval"])
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    local_task(tmp_path)
    found = simple_evaluate(
        model="mmrl",
        model_args="pretrained=asset:tiny_qwen2_5_vl,dtype=float32",
        tasks=["digits_local"],
        task_manager=TaskManager(include_path=str(tmp_path)),
        batch_size=2,
        device="cpu",
        cli_args=None,
    )
    rollout = {"max_new_tokens": 8}
    path = fixture_path("digit_count")
    ours = evaluate("asset:tiny_qwen2_5_vl", "digit_count", path, rollout=rollout)
    assert found["results"]["digits_local"]["exact,none"] == ours.metric
    answers = [row["resps"][0][0] for row in found["samples"]["digits_local"]]
    assert answers == [row["text"] for row in ours.answers]


def test_messages_become_parts_in_order(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20), "red")
    sound = {"array": np.zeros(1600), "sampling_rate": 16_000}
    pieces: list[dict[str, Any]] = [
        {"type": "image", "url": picture},
        {"type": "text", "text": "and"},
        {"type": "audio", "url": sound},
        {"type": "video", "url": str(tmp_path / "a.mp4"), "start_time": 1.5},
    ]
    system = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    sample = sample_of("1", [system, {"role": "user", "content": pieces}])
    assert sample.system == "be brief"
    image, word, audio, video = sample.parts
    assert isinstance(image, MediaRef) and isinstance(image.source, bytes)
    assert word == Text("and")
    assert isinstance(audio, MediaRef) and isinstance(audio.source, bytes)
    assert audio.source[:4] == b"RIFF"
    assert video == MediaRef("video", tmp_path / "a.mp4", {"start": 1.5})
    with pytest.raises(NotImplementedError, match="one user turn"):
        sample_of("1", [{"role": "assistant", "content": []}])


def test_generation_options_are_those_of_the_benchmark() -> None:
    assert sampling({}).temperature == 0.0
    assert sampling({"do_sample": False, "temperature": 0.7}).temperature == 0.0
    asked = sampling({"temperature": 0.7, "top_p": None, "max_new_tokens": 5})
    assert (asked.temperature, asked.top_p, asked.max_new_tokens) == (0.7, 1.0, 5)
    assert until("a\n\nb", ["\n\n", ""]) == "a" and until("ab", None) == "ab"
    assert json.dumps(until("xSTOP", "STOP")) == '"x"'
