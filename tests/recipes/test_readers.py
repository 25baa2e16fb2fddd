"""Readers of raw files: JSON in pieces, pickles without code, tables, key steps of solutions."""

from __future__ import annotations

import io
import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrl.errors import UserError
from mmrl.recipes import json_stream, solution_steps
from mmrl.recipes.pickles import load_plain
from mmrl.recipes.raw_folder import Source, split_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value crosses the edge of a buffer somewhere."""
    monkeypatch.setattr(json_stream, "_CHUNK_CHARACTERS", 7)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]))
def test_arrays_and_objects_stream_as_json_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("json") / "rows.json"
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    assert list(json_stream.array(path)) == rows
    keyed = {"info": {"rows": [1]}, "skipped": rows, "rows": rows, "after": 1}
    path.write_text(json.dumps(keyed, indent=indent), encoding="utf-8")
    assert list(json_stream.array(path, "rows")) == rows
    assert dict(json_stream.members(path)) == keyed


@pytest.mark.parametrize("number", ["0.0625", "-1.5e-10", "1E+5", "12345678901", "0"])
def test_numbers_across_the_edge_of_a_buffer_are_whole(tmp_path: Path, number: str) -> None:
    path = tmp_path / "numbers.json"
    for blanks in range(8):
        path.write_text("[" + " " * blanks + number + "]")
        assert list(json_stream.array(path)) == [json.loads(number)]


@pytest.mark.parametrize(
    "text", ["", "[", "[1", "[1,", "[1 2]", '{"a"}', '{"a": 1', "{1: 2}", "nonsense", "[1,]x"]
)
def test_broken_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    read: Callable[[], Any] = lambda: list(json_stream.array(path))  # noqa: E731
    if text.startswith("{"):
        read = lambda: list(json_stream.members(path))  # noqa: E731
    with pytest.raises(UserError, match=r"bad\.json"):
        read()
    with pytest.raises(UserError, match=r"bad\.json"):
        list(json_stream.array(path, "absent"))


def test_a_large_array_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write('{"images": [')
        file.write(",".join(json.dumps({"id": n, "name": "x" * 100}) for n in range(60_000)))
        file.write('], "annotations": [1, 2]}')
    assert path.stat().st_size > 7_000_000
    tracemalloc.start()
    assert list(json_stream.array(path, "annotations")) == [1, 2]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("echo harmed > harmed.txt",)


def test_pickles_that_name_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, value in enumerate((Harmful(), io.StringIO, [{"a": Harmful()}], Path("x"))):
        path = tmp_path / f"{number}.p"
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match="not a pickle of plain data"):
            load_plain(path)
    assert not (tmp_path / "harmed.txt").exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_plain_pickles_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "plain.p"
    value = [{"sent": "left", "ids": [1, 2], "box": (1.5, 2), "none": None}]
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain(path) == value
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"plain\.p"):
        load_plain(path)


def test_texts_of_python_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.p"
    # pickle.dumps({"sent": "caf\xe9"}, protocol=0) of Python 2
    path.write_bytes(b"(dp0\nS'sent'\np1\nS'caf\\xe9'\np2\ns.")
    assert load_plain(path) == {"sent": "caf\u00e9"}


def test_tables_must_fit_their_header(tmp_path: Path) -> None:
    (tmp_path / "good.tsv").write_text("a\tb\n1\t2\n", encoding="utf-8-sig")
    source = Source(tmp_path, "tables")
    assert list(source.rows(tmp_path / "good.tsv")) == [{"a": "1", "b": "2"}]
    for text in ("a,b\n1\n", "a,b\n1,2,3\n"):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(UserError, match=r"bad\.csv:2: the row has other columns"):
            list(source.rows(tmp_path / "bad.csv"))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002-0a1b2c.parquet", "train"),
        ("test-00011-of-00012.parquet", "test"),
        ("androidcontrol_high_test.parquet", "androidcontrol_high_test"),
    ],
)
def test_names_of_parquet_files_give_the_split(name: str, split: str) -> None:
    assert split_of(Path(name)) == split


@pytest.mark.parametrize(
    ("solution", "steps"),
    [
        ("Since $2x=10$, $x=10/2=5$.", [["2x = 10", "10"], ["10/2 = 5"]]),
        ("We get x = 12 cm.\nSo y = 3.", [["We get x = 12 cm", "12 cm"], ["So y = 3"]]),
        (r"\[a \left(b\right) &= 60^{\circ} \\ &= 30^{\circ}\]",
         [["a (b ) = 60^{\\circ}", "60^{\\circ}"]]),
        ("$x=12$ and again $x=12$", [["x = 12", "12"]]),
        ("$a \\le 12$, $b \\ne 3$, $c>=12$", []),
        ("see ![](https://a.org/x.jpg?width=300&top=20) and [asy]draw(a=12);[/asy]", []),
        ("This shows the important result = the area of the whole figure", []),
        (None, []),
    ],
)  # fmt: skip
def test_key_steps_are_the_results_of_a_solution(solution: str, steps: list[list[str]]) -> None:
    assert solution_steps.of_solution(solution) == steps


def test_key_steps_are_found_again_in_a_completion() -> None:
    from mmrl.algorithms.stages.key_steps import matched

    steps = solution_steps.of_solution("Since $2x=10$, we have $x=10/2=5$.")
    said = "### Step 1: so 2 x = 10\n### Step 2: thus x is 10/2 = 5"
    assert matched(said, steps) == [True, True]
    assert matched("### Step 1: it is 110 or 5", steps) == [False, False]


def test_key_steps_are_capped() -> None:
    many = " ".join(f"${n}+1={n + 1}$." for n in range(10, 90))
    assert len(solution_steps.of_solution(many)) == solution_steps.MAX_STEPS
    assert solution_steps.of_solution("=" * 100_000) == []
