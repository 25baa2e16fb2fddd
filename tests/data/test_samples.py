"""Samples are made when they are drawn; what is held of a record is eight bytes."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmrl.data.inspection import Asking
from mmrl.data.samples import KEPT, Samples, Unusable, load_samples
from mmrl.data.stream import PromptStream
from mmrl.errors import UserError
from mmrl.types import MediaRef
from tests.data.test_tables import jsonl, parquet

BAD = {"answer": "no question"}


def load(path: Path, **options: Any) -> tuple[Samples, dict[str, str]]:
    rejected: dict[str, str] = {}
    return load_samples(Asking(), path, "t", rejected.__setitem__, **options), rejected


def rows(count: int, *bad: int) -> list[dict[str, Any]]:
    return [{**BAD} if i in bad else {"prompt": f"q{i}", "answer": i} for i in range(count)]


def drawn(stream: PromptStream, count: int) -> list[Any]:
    return [sample.gold for sample in stream.draw(count)]


def test_what_is_not_looked_at_is_rejected_when_it_is_drawn(tmp_path: Path) -> None:
    samples, rejected = load(jsonl(tmp_path / "d.jsonl", rows(8, 1, 6)), looked_at=4)
    assert list(rejected) == ["d-2"] and len(samples) == 7
    with pytest.raises(Unusable):
        samples[5]
    assert list(rejected) == ["d-2", "d-7"]
    stream = PromptStream([(samples, 1.0, True)], seed=0)
    assert Counter(drawn(stream, 12)) == dict.fromkeys([0, 2, 3, 4, 5, 7], 2)
    assert len(rejected) == 2


@pytest.mark.parametrize("taken", [0, 1, 3, 7, 20])
def test_a_resumed_stream_passes_over_the_same_records(tmp_path: Path, taken: int) -> None:
    path = jsonl(tmp_path / "d.jsonl", rows(9, 0, 4, 8))

    def stream() -> PromptStream:
        return PromptStream([(load(path, looked_at=0)[0], 1.0, True)], seed=3)

    whole, resumed = stream(), stream()
    whole.draw(taken)
    resumed.load_state(json.loads(json.dumps(whole.state())))
    assert drawn(resumed, 30) == drawn(whole, 30)
    peeked = [sample.gold for sample in resumed.peek(5)]
    assert peeked == drawn(resumed, 5)


def test_data_of_which_nothing_is_of_use_end_the_draw(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [*rows(1), *[BAD] * 3])
    samples, _ = load(path, looked_at=1)
    with pytest.raises(UserError, match=r"no usable record for task 't'.*no column 'prompt'"):
        load(jsonl(tmp_path / "e.jsonl", [BAD] * 3))
    assert len(load(path)[0]) == 1
    stream = PromptStream([(samples[1:], 1.0, False)], seed=0)
    with pytest.raises(UserError, match="no record that is drawn is of use: no column"):
        stream.draw(1)


def test_a_missing_file_is_told_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    path = jsonl(tmp_path / "d.jsonl", [{"prompt": "q", "image": n} for n in ("a.png", "b.png")])
    samples, rejected = load(path)
    assert len(samples) == 1 and "no image at" in rejected["d-2"]


def test_a_named_column_that_the_data_lack_is_refused_at_once(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", rows(2))
    with pytest.raises(UserError, match=r"data.columns.question: .* no column 'q'; it has: prompt"):
        load(path, columns={"question": "q"})


def test_slices_are_samples_too(tmp_path: Path) -> None:
    samples, _ = load(jsonl(tmp_path / "d.jsonl", rows(6, 1)))
    part = samples[1:4]
    assert [s.gold for s in part] == [2, 3, 4] and isinstance(part, Samples)
    assert part[-1].gold == 4 and part.find("d-4") == part[1] and part.find("d-1") is None


def test_embedded_bytes_do_not_stay(tmp_path: Path) -> None:
    """200 rows of 100 kB: what is held afterwards is what the last few samples need."""
    size = 100_000
    picture = {"bytes": None, "path": None}
    path = parquet(
        tmp_path / "d.parquet",
        [{"prompt": "q", "image": {**picture, "bytes": bytes([i]) * size}} for i in range(200)],
        size=50,
    )
    samples, _ = load(path)
    tracemalloc.start()
    for index in (150, 3, 199, *range(200)):
        (ref, _) = samples[index].parts
        assert isinstance(ref, MediaRef) and ref.source == bytes([index]) * size
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < (KEPT + 20) * size


@pytest.mark.slow
def test_a_million_records_cost_an_index(tmp_path: Path) -> None:
    count = 1_000_000
    with (tmp_path / "d.jsonl").open("w") as file:
        file.writelines(f'{{"id": {i}, "prompt": "q{i}", "answer": {i}}}\n' for i in range(count))
    tracemalloc.start()
    samples, _ = load(tmp_path / "d.jsonl", looked_at=1000)
    stream = PromptStream([(samples, 1.0, True)], seed=0)
    first = drawn(stream, 64)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(first)) == 64 and max(first) > count // 2
    assert held < 80 * count  # offsets, ids and one permutation, eight bytes each
    assert samples.find("777777") == samples[777_777]
