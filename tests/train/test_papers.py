"""The papers' recipes run: every phase of each, on small records, with the tiny model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrl.config import RunConfig
from mmrl.runlog.journal import Journal
from mmrl.scoring.tasks import fixture_path
from mmrl.train.run import train
from mmrl.validation import validate
from tests.conftest import TINY

PAPERS = Path(__file__).parents[2] / "configs" / "papers"
SMALL_MODEL = {"path": TINY, "dtype": "float32", "gradient_checkpointing": False}
SIZES: Mapping[str, int] = {
    "group_size": 2,
    "critic_steps": 1,
    "prompts_per_step": 2,
    "max_new_tokens": 48,
    "warmup_steps": 0,
    "checkpoint_every": 0,
    "write_rollouts_every": 1,
}

pytestmark = pytest.mark.slow


def reasoned(folder: Path) -> Path:
    """Records as R1-VL and TON want them: an image, key steps, a target with a thought."""
    image = fixture_path("digit_count").parent / "images"
    source = next(path for path in sorted(image.iterdir()) if path.suffix == ".png")
    (folder / "one.png").write_bytes(source.read_bytes())
    target = (
        "### Image Description:\na\n### Rationales:\nb\n### Step 1:\ncount\n"
        "### The final answer is:\n2"
    )
    rows = [
        {
            "id": str(i),
            "prompt": "<image>How many?",
            "image": "one.png",
            "answer": "2",
            "key_steps": {"Steps": ["count", ["two", "2"]]},
            "target": target if i % 2 else f"<think>One, two.</think>{target}",
        }
        for i in range(4)
    ]
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small(values: Any, records: Path) -> Any:
    """The same recipe on few records in few steps: paths and sizes change, nothing else."""
    if isinstance(values, list):
        return [small(value, records) for value in values]
    if not isinstance(values, dict):
        return values
    made = {key: small(value, records) for key, value in values.items()}
    made |= {key: min(size, made[key]) for key, size in SIZES.items() if key in made}
    if made.get("engine") == "targets":
        made["max_new_tokens"] = 600
    if "steps" in made:
        made["steps"] = 2 if made["steps"] < 100_000 else 100
    if "lengths" in made:
        made |= {"lengths": [8 * made["group_sizes"][0]], "group_sizes": [2]}
    if "task" in made:
        custom = made["task"] == "custom"
        made["path"] = str(records if custom else fixture_path(made["task"]))
        made |= {"eval_path": None} if "eval_path" in made else {}
        made.pop("recipe", None)
    return made


@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_phase_of_a_recipe_runs(path: Path, tmp_path: Path) -> None:
    values = small(yaml.safe_load(path.read_text()), reasoned(tmp_path))
    values |= {"run": str(tmp_path / "run"), "model": SMALL_MODEL}
    train(validate(RunConfig, values, path.name))
    rows = list(Journal(tmp_path / "run" / "metrics.jsonl").rows())
    assert {row["phase"] for row in rows} == {i + 1.0 for i in range(len(values["phases"]))}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == len(rows)


def test_ptst_grows_its_answers_phase_by_phase(tmp_path: Path) -> None:
    values = small(yaml.safe_load((PAPERS / "vision_r1_ptst.yaml").read_text()), reasoned(tmp_path))
    values |= {"run": str(tmp_path / "run"), "model": SMALL_MODEL}
    train(validate(RunConfig, values, "ptst"))
    longest = {}
    for row in Journal(tmp_path / "run" / "metrics.jsonl").rows():
        longest[row["phase"]] = max(longest.get(row["phase"], 0.0), row["length/max"])
    # Groups of 16, 8 and 4 became answers of at most 128, 64 and 32 tokens, to see that each
    # phase has its own limit.
    assert [longest[phase] <= limit for phase, limit in ((2, 128), (3, 64), (4, 32))] == [True] * 3


def test_ton_empties_half_of_the_thoughts(tmp_path: Path) -> None:
    values = small(yaml.safe_load((PAPERS / "ton.yaml").read_text()), reasoned(tmp_path))
    values |= {"run": str(tmp_path / "run"), "model": SMALL_MODEL}
    values["phases"] = [{**values["phases"][0], "trainer": {"steps": 12, "prompts_per_step": 2}}]
    train(validate(RunConfig, values, "ton"))
    texts = [
        group["responses"][0]["text"]
        for group in Journal(tmp_path / "run" / "rollouts.jsonl").rows()
    ]
    thoughts = [text for text in texts if "<think>" in text]
    emptied = [text for text in thoughts if "<think>\n\n</think>" in text]
    assert 0 < len(emptied) < len(thoughts)
    assert all(text.endswith("### The final answer is:\n2") for text in texts)
