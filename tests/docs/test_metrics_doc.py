"""docs/metrics.md says what every number is: the names of real rows, and no others."""

from __future__ import annotations

import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from mmrl.config import RunConfig
from mmrl.runlog.journal import Journal
from mmrl.runlog.metrics import group_metrics
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.panel import Judge
from mmrl.train.run import train
from mmrl.train.trainer import update_metrics
from mmrl.train.update_stats import UpdateStats
from mmrl.types import Episode, Response, TokenSpan
from mmrl.validation import validate
from tests.algorithms.cases import group
from tests.runs import make_digits, run_config

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "memory/cuda_peak": "where CUDA is in use",
    "turns/branches": "of hosted environments: tests/rollout/test_hosted.py",
    "turns/screens_left_out": "of cut histories: tests/rollout/test_history.py",
}


def documented() -> dict[str, re.Pattern[str]]:
    lines = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    names = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert len(names) == len(set(names))
    return {n: re.compile(re.sub(r"<\w+>", "[^/]+", n)) for n in names}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supervised phase and one that rolls out ahead, with a KL off rewards and a correction."""
    folder = tmp_path_factory.mktemp("metrics")
    digits = make_digits(folder / "digits", train=12, test=2)
    warm = {
        "name": "warm",
        "algorithm": {"name": "sft"},
        "rollout": {"engine": "targets"},
        "trainer": {"steps": 1},
    }
    ahead = {
        "name": "rl",
        "algorithm": {
            "name": "gspo",
            "group_size": 2,
            "kl": {"coefficient": 0.04, "placement": "reward"},
        },
        "rollout": {
            "engine": "hf_copy",
            "max_staleness": 1,
            "parity_every": 2,
            "correction": "token_truncate",
            "max_new_tokens": 8,
        },
    }
    ahead["algorithm"]["updates"] = {"mini_batches": 4}
    config = run_config(
        folder / "run",
        digits,
        optimizer={"learning_rate": 1e-3, "warmup_steps": 4, "schedule": "linear"},
        trainer={"steps": 3, "prompts_per_step": 2, "eval_every": 1, "checkpoint_every": 1},
    )
    train(validate(RunConfig, {**config, "phases": [warm, ahead]}, "test"))
    return folder / "run"


def rows_of(run: Path) -> list[dict[str, float]]:
    return list(Journal(run / "metrics.jsonl").rows())


def by_hand() -> set[str]:
    """Names that need many kinds of groups, a critic, or an objective that bounds a weight."""
    asked = group([1.0, 0.0], [4, 4])
    turn = Episode((TokenSpan(0, 1), TokenSpan(2, 4)), ("", ""))
    episode = Response(np.arange(4), np.zeros(4), "<think></think>1", "stop", episode=turn)
    sample = asked.prompt.sample
    other = replace(asked.prompt, sample=replace(sample, variant="turned"))
    elsewhere = replace(asked.prompt, sample=replace(sample, id="r", task="u"))
    groups = [
        replace(asked, responses=(episode, episode)),
        replace(asked, prompt=other),
        replace(asked, prompt=elsewhere, scores=(replace(asked.scores[0], logged={"n": 1}),) * 2),
    ]
    names = set(group_metrics(groups)) | {f"modality/text/{n}" for n in ("reward", "metric")}
    filled = UpdateStats(**dict.fromkeys((f.name for f in fields(UpdateStats)), 1))  # type: ignore[arg-type]
    assert len(update_metrics(filled)) == len(asdict(filled))
    names |= set(update_metrics(filled)) | {"quarantine/encode"}
    judge = Judge(JudgeConfig(url="http://127.0.0.1:9/v1", model="m"), Path("nowhere"))
    return names | {f"judge/j/{name}" for name in judge.metrics()}


def test_every_number_is_explained_and_every_explanation_has_a_number(run: Path) -> None:
    names = {name for row in rows_of(run) for name in row} | by_hand()
    patterns = documented()
    unknown = [n for n in names if not any(p.fullmatch(n) for p in patterns.values())]
    assert not unknown, "add a line to docs/metrics.md"
    stale = [n for n, p in patterns.items() if not any(p.fullmatch(name) for name in names)]
    assert set(stale) == set(ELSEWHERE)


def test_the_rates_of_a_run_are_those_of_its_plan(run: Path) -> None:
    """Two groups make two of four updates: of 12 planned, places 1, 5 and 9 are a step's last.

    The first four warm up; what is left of the other eight is 1 - 1/8 and 1 - 5/8.
    """
    warm, *ahead = rows_of(run)
    assert warm["train/learning_rate"] == pytest.approx(1e-3 * 1 / 4)
    used = [row["train/learning_rate"] for row in ahead]
    assert used == pytest.approx([1e-3 * 2 / 4, 1e-3 * 7 / 8, 1e-3 * 3 / 8])
    assert [row["train/updates"] for row in ahead] == [2, 2, 2]


def test_a_kl_off_rewards_is_shown(run: Path) -> None:
    warm, *ahead = rows_of(run)
    assert "train/kl" not in warm
    assert all(row["train/kl"] > 1e-6 for row in ahead)
