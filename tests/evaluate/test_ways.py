"""Records asked in several ways: forced beginnings, budgets of thinking, consensus and votes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrl.engines.engine import Sampling
from mmrl.errors import ConfigError, UserError
from mmrl.evaluate.ask import verified
from mmrl.evaluate.benchmark import EvalConfig, run_benchmark
from mmrl.evaluate.summary import Scored
from mmrl.evaluate.votes import readings, winner
from mmrl.evaluate.ways import WaysConfig
from mmrl.policy.encoder import Encoder
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import Prompt, Response, Sample, Score, Text
from mmrl.validation import validate

TINY = "asset:tiny_qwen2_5_vl"
MATH = load_task("math")


def asked(out: Path, **changes: Any) -> list[dict[str, Any]]:
    """What became of the records of an evaluation on the shipped model."""
    values = {
        "task": "digit_count",
        "data": fixture_path("digit_count"),
        "model": {"path": TINY},
        "rollout": {"max_new_tokens": 12, "scoring_workers": 1},
        "limit": 2,
        "out": out,
        **changes,
    }
    run_benchmark(validate(EvalConfig, values, "eval"))
    lines = (out.with_suffix(".answers") / "answers.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_answers_begin_with_their_lead(tmp_path: Path) -> None:
    ways = {"leads": {"plain": "<answer>", "other": "So: "}}
    rows = asked(tmp_path / "e.json", ways=ways, samples=2, temperature=1.0)
    for row in rows:
        assert [t.startswith("<answer>") for t in row["texts"]] == [True, True, False, False]
        assert all(text.startswith("So: ") for text in row["texts"][2:])
        assert min(row["lengths"]) > 1, "the lead's own tokens count"
    said = json.loads((tmp_path / "e.json").read_text())["readings"]
    assert list(said) == ["plain", "other"]
    # Sampled answers of another number are others, way by way: they are not taken for these.
    with pytest.raises(UserError, match="samples"):
        asked(tmp_path / "e.json", ways=ways, samples=1, temperature=1.0)


def test_a_thought_is_cut_at_each_budget(tmp_path: Path) -> None:
    rows = asked(tmp_path / "e.json", ways={"budgets": [2, 5], "closing": "|", "marker": "</x>"})
    alone = asked(tmp_path / "a.json", rollout={"max_new_tokens": 5, "scoring_workers": 1})
    for row, whole in zip(rows, alone, strict=True):
        short, long = (text.partition("|") for text in row["texts"])
        assert short[1] == long[1] == "|" and long[0].startswith(short[0])
        assert len(short[0]) < len(long[0])
        assert whole["texts"][0].startswith(long[0]), "it is the thought of the policy"
    assert list(json.loads((tmp_path / "e.json").read_text())["readings"]) == [
        "2 tokens",
        "5 tokens",
    ]


def test_each_budget_has_an_answer_of_each_thought(tmp_path: Path) -> None:
    ways = {"budgets": [2, 5], "closing": "|", "marker": "</x>"}
    for row in asked(tmp_path / "e.json", ways=ways, samples=2, temperature=4.0):
        thoughts = [text.partition("|")[0] for text in row["texts"]]
        assert thoughts[0] != thoughts[1], "two thoughts, two answers at the first budget"
        assert thoughts[2].startswith(thoughts[0]) and thoughts[3].startswith(thoughts[1])


def scored(texts: Sequence[str], right: str, verdicts: Sequence[float] = ()) -> Scored:
    """A record with these answers, each as long as its text and right where it is `right`."""
    said = tuple(f"<answer>{text}</answer>" if text else "?" for text in texts)
    return Scored(
        Sample("1", "math", (), None, meta={"type": "a"}),
        said,
        (False,) * len(texts),
        tuple(Score({}, float(text == right)) for text in texts),
        lengths=tuple(10 * (i + 1) for i in range(len(texts))),
        verdicts=tuple(verdicts),
    )


def test_consensus_takes_the_long_answer_only_where_the_short_ones_differ() -> None:
    ways = WaysConfig(leads={"a": "A", "b": "B", "c": "C"}, consensus="c")
    rows = [scored(["4", "4", "5"], "4"), scored(["4", "5", "6"], "6"), scored(["", "", "7"], "7")]
    found = readings(rows, MATH, ways, 1)
    assert found["consensus"].metric == 1.0 and found["a"].metric == pytest.approx(1 / 3)
    # 10 + 20 where they agree, 10 + 20 + 30 where they do not, nor can be read.
    assert found["consensus"].tokens == pytest.approx((30 + 60 + 60) / 3)


def test_votes_and_their_weights() -> None:
    rows = [scored(["4", "5", "5"], "4", [0.9, 0.2, 0.3]), scored(["1", "2", "2"], "2", [0.1] * 3)]
    found = readings(rows, MATH, WaysConfig(), 3)
    assert {name: said.metric for name, said in found.items()} == {
        "vote": 0.5,
        "weighted vote": 1.0,
        "best": 0.5,
    }
    assert winner([None, None], [1.0, 1.0]) == 0
    assert readings([scored(["4"], "4")], MATH, WaysConfig(), 1) == {}


class Saying:
    """An engine that says one word of each answer, at a probability of its own."""

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        said = {"right": ("Yes", 0.8), "wrong": (" No", 0.7), "odd": ("Maybe", 0.9)}
        found = []
        for prompt in prompts:
            last = prompt.sample.parts[-1]
            assert isinstance(last, Text) and sampling == Sampling(1, 0.0)
            word, p = next(v for k, v in said.items() if f"\n{k}\n" in last.text)
            found.append([Response(np.zeros(1, int), np.array([math.log(p)]), word, "length")])
        return found

    def sync(self, weights: Any) -> None: ...

    def close(self) -> None: ...


def test_a_verifiers_chance_is_that_of_yes() -> None:
    from mmrl.model_config import ModelConfig
    from mmrl.policy.policy import load_policy

    encoder = Encoder(load_policy(ModelConfig(path=TINY)).family)
    prompt = encoder.prompt(Sample("1", "math", (Text("2 + 2?"),), "4"))
    answers = [
        Response(np.zeros(1, int), np.zeros(1), t, "stop") for t in ("right", "wrong", "odd")
    ]
    found = verified([prompt], [answers], "Is it?", encoder, Saying(), 0)
    encoder.close()
    assert found["1"] == pytest.approx((0.8, 0.3, 0.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ways": {"budgets": [4, 2]}}, "numbers of tokens that grow"),
        ({"ways": {"leads": {"a": "A"}, "consensus": "b"}}, "none of the leads"),
        ({"ways": {"leads": {"a": "A", "b": "B"}, "consensus": "a"}}, "at least two leads"),
        ({"ways": {"leads": {"a": "A"}}, "verify": "Right?", "samples": 2}, "one way of asking"),
        ({"verify": "Right?"}, "samples above 1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], said: str) -> None:
    values = {"task": "math", "data": "x", "model": {"path": TINY}, **changes}
    with pytest.raises(ConfigError, match=said):
        validate(EvalConfig, values, "eval")
