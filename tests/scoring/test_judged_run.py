"""Judges with models: a tiny VLM in a process of its own, and a policy that learns from one."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmrl.config import RunConfig
from mmrl.policy.model_folder import model_folder
from mmrl.scoring.judges.backend_of_judge import Outage, Usage
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.local_judge import LocalJudge
from mmrl.scoring.judges.question import Question, question_of
from mmrl.scoring.tasks import fixture_path
from mmrl.train.run import train
from mmrl.types import MediaRef, Sample, Text
from mmrl.validation import validate
from tests.conftest import TINY
from tests.scoring.judge_server import JudgeServer
from tests.scoring.test_judging import judged, shown


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (56, 56), (red, 90, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def asked(config: JudgeConfig, *answers: str, red: int = 200) -> Question:
    sample = Sample("q", "t", (MediaRef("image", png(red)), Text("Which digit?")), gold=None)
    return question_of(config, sample, answers)


def alone(question: Question) -> list[float]:
    """Shares of the replies in a forward of this question alone, without padding."""
    folder = model_folder(TINY)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    before, answers = question.text()
    replies = ("Yes", "No") if question.form == "pointwise" else question.names
    content = [
        {"type": "text", "text": before},
        {"type": "image"},
        {"type": "text", "text": "Which digit?"},
        {"type": "text", "text": f"{answers}Reply with {' or '.join(replies)}."},
    ]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    (ref,) = (part for part in question.parts if isinstance(part, MediaRef))
    assert isinstance(ref.source, bytes)
    picture = Image.open(io.BytesIO(ref.source))
    inputs = processor(text=[text], images=[picture], return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    ids = [processor.tokenizer.encode(reply, add_special_tokens=False)[0] for reply in replies]
    return torch.softmax(logits[ids], 0).tolist()


def test_a_local_vlm_judges_in_a_process_of_its_own() -> None:
    config = JudgeConfig(kind="model", path=Path(TINY), timeout_seconds=600.0, batch=8)
    judge, usage = LocalJudge(config), Usage()
    pairs = config.model_copy(update={"form": "pairwise"})
    # Of different lengths and with different pictures: what is padded must not be seen.
    questions = [
        asked(config, "3"),
        asked(config, "a longer answer: 7", red=10),
        asked(pairs, "3", "5"),
    ]
    try:
        found = judge.ask(questions, usage)
        for question, verdict in zip(questions, found, strict=True):
            expected = alone(question)[: len(question.answers)]
            assert verdict == pytest.approx(expected, abs=1e-5)
        assert found[0] != found[1]
        assert judge._process is not None
        os.kill(judge._process.pid, signal.SIGKILL)
        (lost,) = judge.ask(questions[:1], usage)
        assert isinstance(lost, Outage)
    finally:
        judge.close()


@pytest.mark.slow
def test_eight_in_flight_are_six_times_as_fast_as_one(tmp_path: Path) -> None:
    """Each reply takes half a second, which a loaded machine's own work is small beside."""

    def waits(text: str, number: int) -> str:
        time.sleep(0.5)
        return "<score>5</score>"

    texts = [str(number) for number in range(32)]
    seconds = {}
    for in_flight in (1, 8):
        begun = time.monotonic()
        file = tmp_path / f"{in_flight}.jsonl"
        assert judged(waits, *texts, file=file, in_flight=in_flight) == [0.5] * len(texts)
        seconds[in_flight] = time.monotonic() - begun
    print(f"32 answers: {seconds[1]:.2f} s one at a time, {seconds[8]:.2f} s with 8 in flight")
    assert seconds[1] >= 6 * seconds[8]


def digit(text: str) -> int:
    found = re.search(r"\d", text)
    return int(found[0]) if found else -1


def prefers_large(text: str, number: int) -> str:
    a, b = map(digit, shown(text))
    return f"<better>{'A' if a > b else 'B' if b > a else 'tie'}</better>"


@pytest.mark.slow
def test_grpo_raises_what_a_pairwise_judge_prefers(tmp_path: Path) -> None:
    with JudgeServer(prefers_large) as server:
        config = {
            "run": str(tmp_path / "run"),
            "model": {"path": TINY},
            "data": {
                "task": "digit_count",
                "path": str(fixture_path("digit_count")),
                "weights": {"accuracy": 0.0},
            },
            "judges": {"large": {"url": server.url, "model": "m", "form": "pairwise"}},
            "algorithm": {"name": "grpo", "group_size": 6},
            "rollout": {"max_new_tokens": 8, "scoring_workers": 1},
            "optimizer": {"learning_rate": 3e-4},
            "trainer": {"steps": 12, "prompts_per_step": 5},
        }
        train(validate(RunConfig, config, "test"))
    means: dict[int, list[int]] = {}
    for row in map(json.loads, (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()):
        means.setdefault(row["step"], []).extend(digit(r["text"]) for r in row["responses"])
        assert all(set(r["parts"]) >= {"large"} for r in row["responses"])
    curve = [sum(means[step]) / len(means[step]) for step in sorted(means)]
    print("mean digit by step:", [round(value, 2) for value in curve])
    assert sum(curve[-3:]) / 3 > sum(curve[:3]) / 3 + 1.0
