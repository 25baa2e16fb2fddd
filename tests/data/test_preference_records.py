"""Preference pairs in every layout: which completions a record holds, and what each earned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmrl.corpus.fields import Fields
from mmrl.corpus.ranked import merged, reference_of
from mmrl.data.samples import load_samples
from mmrl.data.sources import Taught
from mmrl.data.stored_completions import StoredCompletions
from mmrl.errors import DataError
from mmrl.scoring.tasks import load_task
from mmrl.types import Sample

PAIR = (("seven", 1.0), ("nine", 0.0))
ASK = [{"role": "user", "content": "How many?"}]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


LAYOUTS: dict[str, dict[str, Any]] = {
    "columns": {"prompt": "How many?", "chosen": "seven", "rejected": "nine"},
    "messages": {"prompt": ASK, "chosen": [said("seven")], "rejected": [said("nine")]},
    "one message": {"prompt": ASK, "chosen": said("seven"), "rejected": said("nine")},
    "typed content": {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "How many?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "seven"}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "nine"}]}],
    },
    "whole conversations": {"chosen": [*ASK, said("seven")], "rejected": [*ASK, said("nine")]},
    "JSON in cells": {
        "prompt": json.dumps(ASK),
        "chosen": json.dumps([said("seven")]),
        "rejected": json.dumps([said("nine")]),
    },
    "ms-swift": {"messages": [*ASK, said("seven")], "rejected_response": "nine"},
    "ms-swift, messages": {
        "messages": [*ASK, said("seven")],
        "rejected_messages": [*ASK, said("nine")],
    },
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "How many?"}],
        "chosen": {"from": "gpt", "value": "seven"},
        "rejected": {"from": "gpt", "value": "nine"},
    },
}


def sample_of(row: dict[str, Any], tmp_path: Path) -> Sample:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "1", **row}) + "\n")
    task = load_task("custom", {"function": []})
    return load_samples(task, path, "custom", lambda *_: None)[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_pair_is_read_from(name: str, tmp_path: Path) -> None:
    sample = sample_of(LAYOUTS[name], tmp_path)
    assert sample.reference is not None
    assert sample.reference.ranked == PAIR
    assert sample.reference.text == "seven"  # a supervised phase learns the chosen one
    assert "".join(part.text for part in sample.parts) == "How many?"  # and asks it without


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"score_chosen": 8.5, "score_rejected": 3}, (8.5, 3.0)),
        ({"chosen_rating": 4, "rejected_rating": 1}, (4.0, 1.0)),
        ({"margin": 2.5}, (2.5, 0.0)),
        ({"score_chosen": 5, "score_rejected": 5}, (1.0, 0.0)),  # the label stands
        ({"score_chosen": 1, "score_rejected": 5}, (1.0, 0.0)),
        ({"margin": -1.0}, (1.0, 0.0)),
        ({"score_chosen": float("nan"), "score_rejected": 0}, (1.0, 0.0)),
    ],
)
def test_scores_and_margins_are_what_the_sides_earned(
    more: dict[str, float], expected: tuple[float, float]
) -> None:
    found = reference_of(Fields({**LAYOUTS["columns"], **more}))
    assert found is not None
    assert tuple(reward for _, reward in found.ranked) == expected


def test_lists_of_completions_have_their_rewards_or_are_left_to_the_task() -> None:
    listed = {"prompt": "?", "completions": ["a", "b", "a"], "rewards": [0.5, None, 1.0]}
    found = reference_of(Fields(listed))
    assert found is not None and found.ranked == (("a", 0.5), ("b", None))
    del listed["rewards"]
    found = reference_of(Fields(listed))
    assert found is not None and found.ranked == (("a", None), ("b", None))
    several = {"prompt": "?", "chosen": "a", "rejected": ["c", [said("d")]]}
    found = reference_of(Fields(several))
    assert found is not None and found.ranked == (("a", 1.0), ("c", 0.0), ("d", 0.0))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "?", "answer": "7", "rejected": 3},
        {"prompt": "?", "answer": "7", "responses": 12},
        {"prompt": "?", "answer": "7", "completions": [{"model": "x", "rating": 3}]},
        {"prompt": "?", "answer": "7", "rejected": None},
    ],
)
def test_columns_of_these_names_that_hold_something_else_are_nobodys_completions(
    row: dict[str, Any],
) -> None:
    assert reference_of(Fields(row)) is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "?", "answer": "7"}, "no pair to learn from: chosen and rejected"),
        ({"prompt": "?", "rejected": "nine"}, "no pair to learn from: chosen and rejected"),
        ({"prompt": "?", "chosen": "a", "rejected": "a"}, "no pair to learn from: chosen"),
        ({"prompt": "?", "completions": ["a", "b"], "rewards": [1, 1]}, "earned the same"),
    ],
)
def test_a_record_without_a_pair_is_told_before_the_run(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    sample = sample_of(row, tmp_path)
    with pytest.raises(ValueError, match=reason):
        Taught(load_task("custom", {"function": []}), in_pairs=True)(sample)


def test_stored_rollouts_are_found_by_the_id_of_their_record(tmp_path: Path) -> None:
    lines = {
        "rollouts.jsonl": [
            {"id": "1", "responses": [
                {"text": "six", "reward": 0.0, "finish": "stop"},
                {"text": "si", "reward": 0.0, "finish": "length"},
            ]},
            {"id": "1", "responses": [{"text": "seven", "reward": None, "finish": "stop"}]},
        ],
        "answers.jsonl": [{"id": "1", "texts": ["six", "eig"], "truncated": [False, True]}],
        "mine.jsonl": [{"id": "1", "answer": "six", "reward": 0.25}, {"id": "2", "answer": "x"}],
    }  # fmt: skip
    sample = sample_of(LAYOUTS["columns"], tmp_path)
    found = {}
    for name, rows in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        stored = StoredCompletions(tmp_path / name)
        reference = stored.of(sample).reference
        assert reference is not None and reference.ranked[:2] == PAIR and reference.text == "seven"
        found[name] = reference.ranked[2:], stored.cut
    assert found == {
        "rollouts.jsonl": ((("six", 0.0),), 1),  # `seven` is the record's own already
        "answers.jsonl": ((("six", None),), 1),
        "mine.jsonl": ((("six", 0.25),), 0),
    }
    assert len(StoredCompletions(tmp_path)) == 1  # a run's folder


def test_a_file_without_completions_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.stored: no file"):
        StoredCompletions(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1: a line has an id, and an answer"):
        StoredCompletions(tmp_path / "bad.jsonl")


def test_a_known_reward_goes_before_one_that_is_not() -> None:
    assert merged((("a", None), ("b", 0.0)), (("a", 1.0), ("b", 1.0))) == (("a", 1.0), ("b", 0.0))
