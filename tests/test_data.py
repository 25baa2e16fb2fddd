"""The stream of samples is a function of the seed and of what was drawn before."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from mmrl.data import PromptStream, load_samples
from mmrl.errors import UserError
from mmrl.records import read_records
from mmrl.types import Answer, Record, Sample, Score, Text


def samples(prefix: str, count: int) -> list[Sample]:
    return [Sample(f"{prefix}{i}", "t", (Text("q"),), gold=i) for i in range(count)]


def stream(seed: int = 0) -> PromptStream:
    return PromptStream([(samples("a", 5), 2.0, True), (samples("b", 3), 1.0, True)], seed)


def ids(drawn: list[Sample]) -> list[str]:
    return [sample.id for sample in drawn]


@pytest.mark.parametrize("taken", [0, 1, 4, 7, 30])
def test_resumed_stream_goes_on_as_if_it_had_never_stopped(taken: int) -> None:
    whole = stream()
    whole.draw(taken)
    state = json.loads(json.dumps(whole.state()))
    resumed = stream()
    resumed.load_state(state)
    assert ids(resumed.draw(40)) == ids(whole.draw(40))


@pytest.mark.parametrize("taken", [0, 4, 7, 13])
def test_peek_gives_what_the_next_draw_gives(taken: int) -> None:
    one, other = stream(), stream()
    one.draw(taken)
    other.draw(taken)
    coming = ids(one.peek(11))
    assert coming == ids(one.draw(11)) == ids(other.draw(11))
    assert one.state() == other.state()


def test_every_epoch_holds_every_sample_once_in_another_order() -> None:
    one = PromptStream([(samples("a", 9), 1.0, True)], seed=0)
    first, second = ids(one.draw(9)), ids(one.draw(9))
    assert set(first) == set(second) == {f"a{i}" for i in range(9)}
    assert first != second


def test_shares_hold_at_any_time() -> None:
    drawn = Counter(i[0] for i in ids(stream().draw(30)))
    assert drawn == {"a": 20, "b": 10}


def test_seeds_differ_and_unshuffled_data_keeps_its_order() -> None:
    assert ids(stream(0).draw(10)) != ids(stream(1).draw(10))
    plain = PromptStream([(samples("a", 4), 1.0, False)], seed=3)
    assert ids(plain.draw(6)) == ["a0", "a1", "a2", "a3", "a0", "a1"]


def test_changed_data_is_refused_on_resume() -> None:
    other = PromptStream([(samples("a", 5), 2.0, True), (samples("b", 4), 1.0, True)], 0)
    with pytest.raises(UserError, match="data changed"):
        other.load_state(stream().state())


class Numbers:
    """A task whose gold must be an integer."""

    name, summary, parts, metric = "numbers", "", {}, "accuracy"

    def records(self, path: Path) -> object:
        return read_records(path)

    def sample(self, record: Record) -> Sample:
        return Sample(record.id, "numbers", (Text("q"),), gold=int(record.fields["gold"]))

    def score(self, gold: object, answer: Answer) -> Score:
        raise NotImplementedError


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_gold_that_does_not_parse_is_rejected_with_its_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"gold": "3"}, {"gold": "three"}, {"id": "x"}, {"gold": 4})
    rejected: dict[str, str] = {}
    kept = load_samples(Numbers(), path, "numbers", rejected.__setitem__)  # type: ignore[arg-type]
    assert [sample.gold for sample in kept] == [3, 4]
    assert set(rejected) == {"d-2", "x"}
    assert "three" in rejected["d-2"] and "gold" in rejected["x"]


def test_no_usable_record_is_an_error(tmp_path: Path) -> None:
    empty, bad = tmp_path / "e.jsonl", write(tmp_path / "b.jsonl", {"gold": "?"})
    empty.write_text("")
    for path in (empty, bad):
        with pytest.raises(UserError, match="no usable record"):
            load_samples(Numbers(), path, "numbers", lambda *_: None)  # type: ignore[arg-type]


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"id": "a", "gold": 1}, {"id": "a", "gold": 2})
    with pytest.raises(UserError, match="id 'a'"):
        load_samples(Numbers(), path, "numbers", lambda *_: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.jsonl", '{"a": 1}\n{"a": ', "d.jsonl:2: not JSON"),
        ("d.jsonl", "[1]\n", "d.jsonl:1: expected an object"),
        ("d.json", "{}", "expected a list"),
        ("d.csv", "a", "cannot read '.csv'"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_records(path))


def test_parquet_rows_equal_json_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows = [{"id": "a", "gold": 1}, {"id": "b", "gold": 2}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    (tmp_path / "d.json").write_text(json.dumps(rows))
    parquet, plain = (list(read_records(tmp_path / f"d.{kind}")) for kind in ("parquet", "json"))
    assert parquet == plain
