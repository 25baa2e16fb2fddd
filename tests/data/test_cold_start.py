"""The shipped cold starts teach to think where the records say how."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.config import RunConfig, load_config
from mmrl.corpus.completion import is_thoughtless, thought_in
from mmrl.data_config import DataConfig
from mmrl.scoring.tasks import example_answer, fixture_path, load_task
from mmrl.train.phases import phases_of
from mmrl.validation import validate
from tests.conftest import TINY
from tests.runs import run_files

CONFIGS = Path(__file__).parents[2] / "configs"
THOUGHT = "I look at the picture and read off what is asked."


def cold_starts() -> dict[str, DataConfig]:
    """The sources of every shipped phase that trains given completions of a thinking task."""
    found = {}
    for path in run_files():
        for phase in phases_of(load_config(path)):
            for source in phase.config.data:
                if (
                    phase.config.rollout.engine == "targets"
                    and not phase.config.rollout.thought_dropout
                    and path.stem != "alto"  # its words for masks are learnt before
                ):
                    found[f"{path.stem}/{phase.name}"] = source
    return found


@pytest.mark.parametrize("name", cold_starts())
def test_a_records_thought_is_what_a_cold_start_teaches(name: str) -> None:
    source = cold_starts()[name]
    own = {"function": "mmrl.tasks.custom.example:exact_match"}
    task = load_task(source.task, own if source.task == "custom" else source.params)
    for record in task.records(fixture_path(source.task)):
        plain = task.ask(record)
        if plain.start is not None:
            continue
        answer = example_answer(plain)
        thinks = is_thoughtless(task.completion(plain, answer) or "")
        row = {**dict(record.fields.items()), "thought": THOUGHT}
        text = task.completion(task.ask(dataclasses.replace(record, fields=row)), answer)
        assert text is not None and (THOUGHT in text) >= thinks
        score = task.score(plain.gold, dataclasses.replace(answer, text=text))
        assert score.status == "ok" and not is_thoughtless(text)


def shapes(folder: Path) -> Path:
    """Eight questions about pictures of one colour, in messages whose last turn thinks."""
    from PIL import Image

    rows: list[dict[str, Any]] = []
    for i, colour in enumerate(("red", "blue", "green", "white") * 2):
        Image.new("RGB", (56, 56), colour).save(folder / f"{i}.png")
        thought = f"<think>The picture is {colour}.</think>\n" + rf"\boxed{{{i % 4 + 1}}}"
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": "<image>Which number has it?"},
                    {"role": "assistant", "content": thought},
                ],
                "images": [f"{i}.png"],
                "answer": str(i % 4 + 1),
            }
        )
    path = folder / "cold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_after_vision_r1s_cold_start_thoughts_are_not_empty(tmp_path: Path) -> None:
    from mmrl.evaluate.benchmark import run_benchmark, settings_of
    from mmrl.train.run import train

    data = shapes(tmp_path)
    whole = load_config(CONFIGS / "papers" / "vision_r1.yaml").model_dump()
    cold = {**whole["phases"][0], "data": {"task": "geometry3k", "path": data}}
    cold["optimizer"] = {"learning_rate": 2e-3}
    cold["trainer"] = {"steps": 40, "prompts_per_step": 8}
    values = {**whole, "run": tmp_path / "run", "phases": [cold], "model": {"path": TINY}}
    values["data"] = {"task": "geometry3k", "path": data}
    values["rollout"] = {"max_new_tokens": 64, "scoring_workers": 1}
    train(validate(RunConfig, values, "test"))
    flags: dict[str, Any] = {"model": str(tmp_path / "run" / "checkpoints" / "step_40")}
    flags |= {"task": "geometry3k", "data": data, "max_new_tokens": 64, "engine": None}
    run_benchmark(settings_of({**flags, "out": tmp_path / "e.json"}, []))
    rows = [json.loads(line) for line in (tmp_path / "e.answers" / "answers.jsonl").open()]
    texts = [text for row in rows for text in row["texts"]]
    thoughts = [text for text in texts if "</think>" in text and thought_in(text)]
    print(f"{len(thoughts)} of {len(texts)} thoughts are not empty; {texts[0]!r}")
    assert len(texts) == 8 and len(thoughts) >= 7
