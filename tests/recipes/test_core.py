"""What all recipes share: overlap, dropping, pass rates, media, and what is written of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from mmrl import cli
from mmrl.data.samples import load_samples
from mmrl.errors import UserError
from mmrl.recipes.manifest import verify
from mmrl.recipes.medium import Medium
from mmrl.recipes.meter import meter
from mmrl.recipes.raw_folder import Source
from mmrl.recipes.recipe import About, Recipe
from mmrl.recipes.settings import Options
from mmrl.scoring.tasks import load_task
from tests.recipes.grading import refuse
from tests.recipes.media import picture, picture_bytes, write_lines

Row = dict[str, Any]


def rows(source: Source) -> Iterator[tuple[str, Row]]:
    for file in source.need("*.jsonl"):
        for row in source.rows(file):
            yield file.stem, row


def convert(raw: Row, source: Source) -> Mapping[str, Any]:
    return {**raw, "image": source.medium(raw["image"])}


RECIPE = Recipe(
    about=About(
        name="drawn", summary="", task="counting", license="CC0", url="https://example.org",
        layout="*.jsonl",
    ),
    question=("problem",),
    rows=rows,
    convert=convert,
)  # fmt: skip


def row(id: str, image: int, problem: str, solution: Any = 1) -> Row:
    return {"id": id, "image": f"images/{image}.png", "problem": problem, "solution": solution}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three training and three test questions over four pictures, of which 4 equals 1."""
    folder = tmp_path / "raw"
    for number in (1, 2, 3):
        picture(folder / "images" / f"{number}.png", number)
    picture(folder / "images" / "4.png", 1)
    train = [row("a", 1, "How many?"), row("b", 2, "How  MANY?"), row("c", 1, "<image>how many?")]
    test = [row("x", 4, "How many?"), row("y", 3, "How many?"), row("z", 2, "Why?")]
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "test.jsonl", test)
    return folder


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def matches(out: Path) -> set[tuple[str, str, str]]:
    return {(m["id"], m["kind"], m["of"]) for m in lines(out / "overlap.jsonl")}


def test_repeats_and_overlap_are_found_by_content_and_folded_text(
    raw: Path, tmp_path: Path
) -> None:
    facts = RECIPE.build(raw, tmp_path / "out")
    # a, c and x ask the same of the same bytes. b shares its picture with z. y shows another
    # picture than any training record and shares but the text; so does b with x and y.
    assert matches(tmp_path / "out") == {
        ("c", "question", "a"),
        ("a", "question", "x"), ("c", "question", "x"), ("b", "media", "z"),
        ("x", "question", "a"), ("y", "text", "a"), ("z", "media", "b"),
    }  # fmt: skip
    assert facts["repeated_questions"] == {"train": 1}
    assert facts["shared"] == {
        "train ~ test": {"media": 1, "question": 2},
        "test ~ train": {"media": 1, "question": 1, "text": 1},
    }


@pytest.mark.parametrize(("drop", "kept"), [("none", "abc"), ("question", "b"), ("media", "")])
def test_dropping_touches_training_records_only(
    raw: Path, tmp_path: Path, drop: Any, kept: str
) -> None:
    out = tmp_path / "out"
    facts = RECIPE.build(raw, out, options=Options(drop=drop))
    assert "".join(r["id"] for r in lines(out / "train.jsonl")) == kept
    assert "".join(r["id"] for r in lines(out / "test.jsonl")) == "xyz"
    assert facts["records"] == {"test": 3, "train": len(kept)}
    gone = lines(out / "left_out.jsonl")
    assert sum(facts["left_out"].values()) == len(gone) == 3 - len(kept)
    assert len(lines(out / "fingerprints.jsonl")) == 3 + len(kept)
    assert verify(out) == []
    # Picture 1 is needed by no record once a and c are gone: 4, with the same bytes, stays.
    assert (out / "images" / "4.png").is_file()


def test_overlap_with_other_folders_is_found_and_dropped(raw: Path, tmp_path: Path) -> None:
    benchmark = tmp_path / "bench"
    RECIPE.build(raw, benchmark)
    other = tmp_path / "other"
    picture(other / "images" / "9.png", 3)
    picture(other / "images" / "8.png", 8)
    write_lines(
        other / "train.jsonl", [row("p", 9, "how many?"), row("q", 9, "Which?"), row("r", 8, "!")]
    )
    options = Options(against=(benchmark,), drop="question")
    facts = RECIPE.build(other, tmp_path / "out", options=options)
    assert facts["shared"]["train ~ bench/test"] == {"media": 1, "question": 1}
    assert [r["id"] for r in lines(tmp_path / "out" / "train.jsonl")] == ["q", "r"]
    with pytest.raises(UserError, match=r"no fingerprints.jsonl in .*other"):
        RECIPE.build(raw, tmp_path / "again", options=Options(against=(other,)))


def test_pass_rates_are_means_over_the_answers(raw: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.jsonl"
    answers = [("a", 1.0), ("a", 0.0), ("a", 0.0), ("a", 0.0), ("x", None), ("y", 1), ("gone", 0)]
    write_lines(scores, [{"id": id, "metric": m, "reward": 2, "status": "ok"} for id, m in answers])
    facts = RECIPE.build(raw, tmp_path / "out", options=Options(difficulty=scores))
    rates = {
        r["id"]: r.get("pass_rate")
        for split in ("train", "test")
        for r in lines(tmp_path / "out" / f"{split}.jsonl")
    }
    assert rates == {"a": 0.25, "b": None, "c": None, "x": None, "y": 1.0, "z": None}
    assert facts["difficulty"] == {
        "rated": 2, "unrated": 4, "unknown_ids": 1,
        "by_tenth_of_pass_rate": [0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "metric": 17.0}', "outside 0 to 1"),
        ('{"id": "a", "metric": "1"}', "no number"),
        ('{"metric": 1}', "needs an 'id'"),
        ("{", "not JSON"),
    ],
)
def test_scores_that_are_no_pass_rates_are_refused(
    raw: Path, tmp_path: Path, line: str, message: str
) -> None:
    scores = tmp_path / "scores.jsonl"
    scores.write_text(line + "\n")
    with pytest.raises(UserError, match=f"scores.jsonl:1: .*{message}"):
        RECIPE.build(raw, tmp_path / "out", options=Options(difficulty=scores))


def test_every_row_that_is_no_record_is_listed_with_its_reason(raw: Path, tmp_path: Path) -> None:
    (raw / "images" / "0.png").touch()
    bad = [
        row("gone", 7, "How many?"), row("empty", 0, "How many?"), row("odd", 1, "Many?", "three"),
        {"id": "bare"}, row("leaves", 1, "x") | {"image": "../secret.png"}, row(" ", 1, "x"),
        row("nan", 1, "x") | {"weight": float("nan")}, row("a", 2, "x"), row("a", 3, "x"),
    ]  # fmt: skip
    write_lines(raw / "extra.jsonl", bad)
    out = tmp_path / "out"
    facts = RECIPE.build(raw, out)
    reasons = {r["id"]: r["reason"] for r in lines(out / "left_out.jsonl")}
    assert all(r["split"] == "extra" for r in lines(out / "left_out.jsonl"))
    assert reasons.pop("gone") == "no file for its medium: .png"
    assert reasons.pop("empty") == "its medium is an empty file"
    assert reasons.pop("odd") == "ValueError: the gold is no count: 'three'"
    assert reasons.pop("nan").startswith("ValueError: Out of range float")
    assert sorted(reasons.values()) == [
        "KeyError: 'image'", "ValueError: media path leaves the data folder: ../secret.png",
        "empty id",
    ]  # fmt: skip
    assert sum(facts["left_out"].values()) == 7
    assert [r["id"] for r in lines(out / "extra.jsonl")] == ["a", "a~2"]
    assert verify(out) == []


def test_media_of_refused_rows_are_not_left_behind(raw: Path, tmp_path: Path) -> None:
    picture(raw / "images" / "5.png", 5)
    write_lines(raw / "extra.jsonl", [row("odd", 5, "x", "three"), row("fine", 1, "x")])
    RECIPE.build(raw, tmp_path / "out")
    assert not (tmp_path / "out" / "images" / "5.png").exists()
    assert (tmp_path / "out" / "images" / "1.png").is_file()


def test_embedded_media_are_named_by_content(raw: Path, tmp_path: Path) -> None:
    def embed(raw_row: Row, source: Source) -> Mapping[str, Any]:
        number = int(raw_row["image"][7])
        return {**raw_row, "image": Medium(picture_bytes(number, form="JPEG"))}

    Recipe(about=RECIPE.about, question=("problem",), rows=rows, convert=embed).build(
        raw, tmp_path / "out"
    )
    names = {r["id"]: r["image"] for r in lines(tmp_path / "out" / "train.jsonl")}
    assert names["a"] == names["c"] != names["b"]
    assert all(name.startswith("media/") and name.endswith(".jpg") for name in names.values())


def test_the_manifest_shows_changed_and_missing_files(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    RECIPE.build(raw, out, options=Options(copy=True))
    assert verify(out) == []
    (out / "images" / "2.png").write_bytes(b"other")
    (out / "test.jsonl").unlink()
    assert sorted(verify(out)) == ["images/2.png has changed", "test.jsonl is gone"]
    assert cli.main(["data", "--verify", str(out)]) == 2
    (out / "manifest.json").unlink()
    with pytest.raises(UserError, match="run its recipe again"):
        verify(out)


def test_a_second_build_leaves_nothing_of_the_first(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    RECIPE.build(raw, out)
    (raw / "train.jsonl").unlink()
    RECIPE.build(raw, out)
    left = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    assert left == {
        "test.jsonl", "left_out.jsonl", "overlap.jsonl", "fingerprints.jsonl", "manifest.json",
        "images/2.png", "images/3.png", "images/4.png",
    }  # fmt: skip
    (out / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="no manifest of a recipe"):
        RECIPE.build(raw, out)


def test_a_build_that_stops_leaves_no_manifest(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    RECIPE.build(raw, out)
    (raw / "train.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"train.jsonl:1: not JSON"):
        RECIPE.build(raw, out)
    assert not (out / "manifest.json").exists()


def test_rates_and_key_steps_reach_the_samples_that_algorithms_see(
    raw: Path, tmp_path: Path
) -> None:
    def explain(raw_row: Row, source: Source) -> Mapping[str, Any]:
        return {**convert(raw_row, source), "key_steps": [["x = 12", "12"]]}

    scores = write_lines(tmp_path / "scores.jsonl", [{"id": "a", "pass_rate": 0.5}])
    Recipe(about=RECIPE.about, question=("problem",), rows=rows, convert=explain).build(
        raw, tmp_path / "out", options=Options(difficulty=scores)
    )
    task = load_task("counting")
    samples = load_samples(task, tmp_path / "out" / "train.jsonl", "counting", refuse)
    assert samples[0].meta["pass_rate"] == 0.5
    assert samples[0].meta["key_steps"] == (("x = 12", "12"),)
    assert "pass_rate" not in samples[1].meta


def test_the_live_line_counts_and_goes_away() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with meter("drawn", console) as on_record:
        on_record(1234, 5)
    assert "drawn 1,234 records, 5 left out" in Text.from_ansi(console.file.getvalue()).plain
    quiet = Console(file=io.StringIO(), force_terminal=False)
    with meter("drawn", quiet) as on_record:
        on_record(1, 0)
    assert quiet.file.getvalue() == ""


def test_the_output_is_not_the_input(raw: Path) -> None:
    with pytest.raises(UserError, match="same folder"):
        RECIPE.build(raw, raw)


def test_held_out_groups_depend_on_key_and_seed_only(raw: Path) -> None:
    keys = [f"group {n}" for n in range(4000)]
    first = [Source(raw, "").held_out(key, 0.2) for key in keys]
    assert first == [Source(raw, "").held_out(key, 0.2) for key in keys]
    assert first != [Source(raw, "", seed=1).held_out(key, 0.2) for key in keys]
    assert 0.17 < sum(first) / len(first) < 0.23


def test_of_repeated_training_questions_the_first_stays(raw: Path, tmp_path: Path) -> None:
    (raw / "test.jsonl").unlink()
    facts = RECIPE.build(raw, tmp_path / "out", options=Options(drop="question"))
    assert [r["id"] for r in lines(tmp_path / "out" / "train.jsonl")] == ["a", "b"]
    assert facts["left_out"] == {"repeats a question": 1}
