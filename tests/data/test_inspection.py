"""`mmrl data inspect`: the layout, records as a model will see them, and what would be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmrl.cli import main
from tests.data.test_layouts import PNG
from tests.data.test_tables import jsonl

TALK = [
    {"role": "user", "content": "<image>Describe it."},
    {"role": "assistant", "content": "A card."},
    {"role": "user", "content": "Which colour?"},
    {"role": "assistant", "content": "red"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A good record, one whose picture is missing, one whose picture is damaged, two of one id."""
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "bad.png").write_bytes(PNG[:40])
    rows = [
        {"id": name, "messages": TALK, "images": [image]}
        for name, image in (("1", "a.png"), ("2", "no.png"), ("3", "bad.png"), ("1", "a.png"))
    ]
    return jsonl(tmp_path / "d.jsonl", rows)


def test_what_is_said_for_people(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(data)]) == 0
    said = capsys.readouterr().out
    for line in (
        "JSON Lines, 4 records, layout: messages in `messages`",
        "1 records share an id with another",
        f"  user: [image 1 x 1 x 3: {data.parent / 'a.png'}] Describe it.",
        "  assistant: A card.\n  user: Which colour?",
        "completion: 'red'",
        "2 of 4 records looked at would be refused",
        "no image at",
        "not a readable image",
    ):
        assert line in said


def test_what_is_said_for_programs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(data), "--json", "--limit", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["looked_at"], found["repeated_ids"]) == (4, 2, 1)
    (shown,) = found["shown"]
    assert [turn["role"] for turn in shown["turns"]] == ["user", "assistant", "user"]
    assert shown["turns"][0]["parts"][0]["kind"] == "image" and shown["gold"] == "red"
    (refused,) = found["refused"]
    assert refused["ids"] == ["2"] and "no image at" in refused["reason"]


def test_a_task_and_a_mapping(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = jsonl(data.parent / "q.jsonl", [{"q": "Which?", "pic": "a.png", "a": "dog", "k": "OCR"}])
    mapped = ["columns.question=q", "columns.image=pic", "columns.answer=a"]
    words = ["data", "inspect", str(rows), "--task", "vqa_mix", *mapped, "columns.problem_type=k"]
    assert main(words) == 0
    assert "Which?" in (said := capsys.readouterr().out) and "<answer>dog</answer>" in said
    assert main(["data", "inspect", str(rows)]) == 0
    assert "no column 'prompt'; the record has: q, pic, a, k" in capsys.readouterr().out
    for wrong in (["data", "inspect"], [*words, "colums.a=b"], ["data", "digits", str(rows)]):
        assert main(wrong) == 2
