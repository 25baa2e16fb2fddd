"""The stream of samples is a function of the seed and of what was drawn before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmrl.data.samples import Samples, load_samples
from mmrl.data.stream import PromptStream, distinct_ids
from mmrl.errors import UserError
from mmrl.records import read_records
from mmrl.task import Task
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


class Numbers(Task):
    """A task whose gold must be an integer."""

    name, summary, parts, metric = "numbers", "", {}, "accuracy"

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
    kept = load_samples(Numbers(), path, "numbers", rejected.__setitem__)
    assert [sample.gold for sample in kept] == [3, 4]
    assert set(rejected) == {"d-2", "x"}
    assert "three" in rejected["d-2"] and "gold" in rejected["x"]


def test_no_usable_record_is_an_error(tmp_path: Path) -> None:
    empty, bad = tmp_path / "e.jsonl", write(tmp_path / "b.jsonl", {"gold": "?"})
    empty.write_text("")
    for path, said in ((empty, "it holds no records"), (bad, "no usable record")):
        with pytest.raises(UserError, match=said):
            load_samples(Numbers(), path, "numbers", lambda *_: None)


def test_an_episode_without_a_turn_is_refused(tmp_path: Path) -> None:
    class Turnless(Numbers):
        def sample(self, record: Record) -> Sample:
            return replace(super().sample(record), turns=0)

    path = write(tmp_path / "d.jsonl", {"gold": "3"})
    with pytest.raises(UserError, match="an episode has one turn at least, the task says 0"):
        load_samples(Turnless(), path, "numbers", lambda *_: None)


def test_repeated_ids_get_a_suffix_and_are_counted(tmp_path: Path) -> None:
    rows = [{"id": i, "gold": n} for n, i in enumerate(["a", "b", "a", "a", None, None])]
    path = write(tmp_path / "d.jsonl", *rows)
    found = load_samples(Numbers(), path, "numbers", lambda *_: None)
    assert ids(list(found)) == ["a", "b", "a#2", "a#3", "d-5", "d-6"]
    assert found.repeated == 2
    assert [found.find(i).gold for i in ("a", "a#2", "a#3", "d-6")] == [0, 2, 3, 5]
    assert found.find("a#4") is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.jsonl", '{"a": 1}\n{"a": ', "d.jsonl:2: not JSON"),
        ("d.jsonl", "[1]\n", "d.jsonl:1: expected an object"),
        ("d.json", "{}", "expected a list"),
        ("d.xlsx", "a", "cannot read '.xlsx'"),
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


class Scripted:
    """A chooser with fixed answers: shares, and the order of each epoch."""

    def __init__(self, shares: dict[str, float], *orders: list[int] | None) -> None:
        self.shares, self.orders = shares, list(orders)

    def mix(self, shares: Mapping[str, float]) -> Mapping[str, float]:
        return self.shares or shares

    def stage(self) -> int:
        return 0

    def epoch(
        self, samples: Sequence[Sample], number: int, rng: np.random.Generator
    ) -> list[int] | None:
        return self.orders.pop(0)


def two_sources() -> PromptStream:
    first = [replace(s, task="a") for s in samples("a", 4)]
    second = [replace(s, task="b") for s in samples("b", 4)]
    return PromptStream([(first, 1.0, False), (second, 1.0, False)], 0)


def test_a_chooser_sets_the_shares_from_now_on() -> None:
    one = two_sources()
    assert Counter(i[0] for i in ids(one.draw(8))) == {"a": 4, "b": 4}
    late = Scripted({"a": 1.0, "b": 3.0}, *[None] * 9)
    assert Counter(i[0] for i in ids(one.draw(12, late))) == {"a": 3, "b": 9}


def test_a_chosen_order_survives_a_resume_and_an_empty_one_ends_the_source() -> None:
    def make() -> PromptStream:
        return PromptStream([(samples("a", 4), 1.0, True)], 0)

    whole, resumed = make(), make()
    assert ids(whole.draw(2, Scripted({}, [3, 1, 0]))) == ["a3", "a1"]
    resumed.load_state(json.loads(json.dumps(whole.state())))
    # The rest of the epoch is as it was chosen; nothing is left for the next.
    assert ids(resumed.draw(5, Scripted({}, []))) == ["a0"]
    assert resumed.draw(5, Scripted({})) == []
    ended = make()
    ended.load_state(json.loads(json.dumps(resumed.state())))
    assert ended.draw(1, Scripted({})) == []


def test_one_source_ends_and_the_other_goes_on() -> None:
    orders = Scripted({}, [0], [1, 2], [], [3])
    assert ids(two_sources().draw(4, orders)) == ["a0", "b1", "b2", "b3"]


def test_samples_are_found_by_id() -> None:
    assert stream().find("b2").gold == 2
    with pytest.raises(UserError, match="no longer in the data"):
        stream().find("c0")


def test_ids_of_a_run_are_distinct(tmp_path: Path) -> None:
    def numbers(name: str, *ids: str) -> Samples:
        path = write(tmp_path / f"{name}.jsonl", *({"id": i, "gold": 1} for i in ids))
        return load_samples(Numbers(), path, name, lambda *_: None)

    plain = {"x": numbers("x", "a0", "a1"), "y": numbers("y", "b0", "b1")}
    assert ids(list(distinct_ids(plain)["y"])) == ["b0", "b1"]
    shared = distinct_ids({"x": plain["x"], "y": numbers("z", "a0")})
    assert [s.id for made in shared.values() for s in made] == ["x/a0", "x/a1", "y/a0"]
    assert shared["x"].find("x/a1") == shared["x"][1] and shared["x"].find("a1") is None


def test_columns_that_algorithms_read_follow_the_sample(tmp_path: Path) -> None:
    rows = [
        {"gold": 1, "key_steps": {"Steps": ["a", ["b", "c"]]}, "again": '["x", "y"]'},
        {"gold": 2, "pass_rate": 0.25},
        {"gold": 3, "pass_rate": 2},
        {"gold": 4, "again": "x"},
        {"gold": 5, "country": "7"},
        {"gold": 6, "country": 7},
    ]
    path, rejected = write(tmp_path / "d.jsonl", *rows), {}
    kept = load_samples(
        Numbers(),
        path,
        "numbers",
        rejected.__setitem__,
        columns={"rewrites": "again", "kind": "country"},
    )
    assert kept[0].meta == {"key_steps": ("a", ("b", "c")), "rewrites": ("x", "y")}
    assert kept[1].meta == {"pass_rate": 0.25}
    assert [sample.meta for sample in kept[2:]] == [{"kind": "7"}] * 2
    assert "pass_rate 2 is not" in rejected["d-3"] and "not JSON: 'x'" in rejected["d-4"]
