"""The rollout log, its thumbnails, the quarantine list, and how they survive a kill."""

from __future__ import annotations

import dataclasses
import io
import json
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.frame import Frame, Mark
from mmrl.runlog.journal import Journal
from mmrl.runlog.quarantine import Quarantine
from mmrl.runlog.transcript import (
    AUDIO_SECONDS,
    THUMBNAIL_SIDE,
    Entry,
    Transcript,
    advantages_of,
    file_stem,
    preview,
    sheet_indices,
)
from mmrl.types import (
    EncodedMedium,
    Episode,
    Group,
    Media,
    MediaRef,
    Observed,
    Prompt,
    Response,
    Sample,
    Score,
    Text,
    TokenSpan,
    TrainSample,
)


def image(side: tuple[int, int] = (40, 30), name: str = "abc") -> Media:
    width, height = side
    return Media("image", np.full((height, width, 3), 90, np.uint8), Frame(side, (28, 28)), name)


def make_group(media: tuple[Media, ...] = (), texts: tuple[str, ...] = ("one", "two")) -> Group:
    encoded = tuple(EncodedMedium(m.kind, m.hash, {}, 4, m.frame) for m in media)
    parts = (*(MediaRef(m.kind, b"") for m in media), Text("How many?"))
    sample = Sample("s-1", "count", parts, gold={"box": (1, 2), "label": "a"}, variant="v2")
    prompt = Prompt(sample, (1,), np.arange(8), np.zeros((1, 8), int), 8, encoded, "unit")
    responses = tuple(Response(np.arange(3), np.zeros(3), text, "stop") for text in texts)
    scores = tuple(Score({"accuracy": 1.0}, 1.0, reward=1.0) for _ in texts)
    return Group(prompt, responses, scores)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_group_is_one_line_with_everything_on_it(tmp_path: Path) -> None:
    picture = image()
    group = make_group((picture,))
    varying = np.array([0.5, np.nan, -1.0])
    entry = Entry(
        group,
        "<image>How many?",
        {"abc": picture},
        advantages=[np.full(3, 0.25), varying],
        tokens=[("a", "b", "c"), ("d", "e", "f")],
    )
    Transcript(tmp_path).write(7, [entry])
    (line,) = lines(tmp_path / "rollouts.jsonl")
    assert line["step"] == 7
    assert (line["id"], line["task"], line["variant"]) == ("s-1", "count", "v2")
    assert line["prompt"] == "<image>How many?"
    assert line["gold"] == {"box": [1, 2], "label": "a"}
    assert line["media"] == [
        {
            "kind": "image",
            "hash": "abc",
            "thumbnail": "media/abc.jpg",
            "source_size": [40, 30],
            "processed_size": [28, 28],
            "tokens": 4,
            "seconds": [],
        }
    ]
    first, second = line["responses"]
    assert first["advantages"] == 0.25  # constant: one number
    assert second["advantages"] == [0.5, None, -1.0]  # null: not trained
    assert second["tokens"] == ["d", "e", "f"]
    assert {k: first[k] for k in ("text", "length", "finish", "reward", "parts", "status")} == {
        "text": "one",
        "length": 3,
        "finish": "stop",
        "reward": 1.0,
        "parts": {"accuracy": 1.0},
        "status": "ok",
    }


def test_a_thumbnail_is_bounded_and_written_once(tmp_path: Path) -> None:
    large = image((2000, 500))
    transcript = Transcript(tmp_path)
    transcript.write(1, [Entry(make_group((large,)), "", {"abc": large})])
    path = tmp_path / "media" / "abc.jpg"
    with Image.open(path) as shown:
        assert shown.size == (THUMBNAIL_SIDE, THUMBNAIL_SIDE // 4)
    stamp = path.stat().st_mtime_ns
    transcript.write(2, [Entry(make_group((large,)), "")])  # array no longer at hand
    assert path.stat().st_mtime_ns == stamp
    assert lines(tmp_path / "rollouts.jsonl")[1]["media"][0]["thumbnail"] == "media/abc.jpg"


def test_a_medium_without_its_array_has_no_thumbnail(tmp_path: Path) -> None:
    Transcript(tmp_path).write(1, [Entry(make_group((image(),)), "")])
    assert lines(tmp_path / "rollouts.jsonl")[0]["media"][0]["thumbnail"] is None


def test_a_hash_cannot_leave_the_media_folder(tmp_path: Path) -> None:
    sly = image(name="../../outside")
    Transcript(tmp_path / "run").write(1, [Entry(make_group((sly,)), "", {sly.hash: sly})])
    (line,) = lines(tmp_path / "run" / "rollouts.jsonl")
    assert line["media"][0]["thumbnail"] == f"media/{file_stem('../../outside')}.jpg"
    assert not (tmp_path / "outside.jpg").exists()
    assert len(list((tmp_path / "run" / "media").iterdir())) == 1


def test_a_video_is_a_sheet_of_evenly_spaced_frames(tmp_path: Path) -> None:
    frames = np.zeros((16, 20, 40, 3), np.uint8)
    frames[15] = 250
    clip = Media("video", frames, Frame((40, 20), (28, 28), None, tuple(range(16))), "clip")
    Transcript(tmp_path).write(1, [Entry(make_group((clip,)), "", {"clip": clip})])
    (medium,) = lines(tmp_path / "rollouts.jsonl")[0]["media"]
    assert medium["shown"] == [0, 2, 4, 6, 9, 11, 13, 15]
    assert sheet_indices(3) == [0, 1, 2]
    with Image.open(tmp_path / "media" / "clip.jpg") as sheet:
        assert sheet.size == (2 * 40 + 4, 4 * 20 + 3 * 4)
        assert sheet.getpixel((70, 85))[0] > 200  # the last frame is at the bottom right
        assert sheet.getpixel((20, 10))[0] < 50


def test_audio_is_a_capped_wav_with_its_full_duration(tmp_path: Path) -> None:
    rate, seconds = 8000, AUDIO_SECONDS + 5
    samples = np.full(int(rate * seconds), 2.0, np.float32)  # too loud: clipped, not wrapped
    sound = Media("audio", samples, Frame(seconds=(1.0, 1.0 + seconds)), "sound")
    with wave.open(io.BytesIO(preview(sound))) as file:
        assert file.getframerate() == rate
        assert file.getnframes() == rate * AUDIO_SECONDS
        assert np.frombuffer(file.readframes(1), "<i2")[0] == 32767
    Transcript(tmp_path).write(1, [Entry(make_group((sound,)), "", {"sound": sound})])
    assert lines(tmp_path / "rollouts.jsonl")[0]["media"][0]["duration"] == seconds


def test_hostile_text_stays_one_line_of_json(tmp_path: Path) -> None:
    text = 'a\nb\u2028c"\\\ud800\x00'
    Transcript(tmp_path).write(1, [Entry(make_group(texts=(text,)), "")])
    (row,) = Journal(tmp_path / "rollouts.jsonl").rows()
    assert row["responses"][0]["text"] == text


def test_advantages_are_those_under_the_responses_own_prompt() -> None:
    group, other = make_group(), make_group()
    mask = np.array([True, True, False])
    samples = [
        TrainSample(other.prompt, group.responses[0], np.full(3, 9.0), mask),
        TrainSample(group.prompt, group.responses[0], np.array([1.0, 2.0, 3.0]), mask),
    ]
    ((first, second),) = advantages_of([group], samples)
    assert second is None
    np.testing.assert_array_equal(first, [1.0, 2.0, np.nan])
    ((borrowed, _),) = advantages_of([group], samples[:1])
    np.testing.assert_array_equal(borrowed, [9.0, 9.0, np.nan])


def test_a_response_that_stands_in_two_places_has_its_own_advantages_in_each() -> None:
    group = make_group()
    twice = replace(group, responses=(group.responses[0],) * 2)
    samples = [
        TrainSample(
            group.prompt,
            group.responses[0],
            np.full(3, float(value)),
            np.ones(3, dtype=bool),
            origin=origin,
        )
        for value, origin in enumerate([(0, 0), (0, 1), (1, 1)])
    ]
    (one, other), (dropped, last) = advantages_of([twice, twice], samples)
    assert one is not None and other is not None and last is not None and dropped is None
    assert [one[0], other[0], last[0]] == [0.0, 1.0, 2.0]


def test_a_resumed_run_drops_later_steps_and_a_half_written_line(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path)
    for step in (1, 2, 2, 3):
        transcript.write(step, [Entry(make_group(), "")])
    path = tmp_path / "rollouts.jsonl"
    with path.open("ab") as file:
        file.write(b'{"step": 2, "id": "cut o')
    resumed = Transcript(tmp_path)
    resumed.truncate_to_step(2)
    assert [row["step"] for row in lines(path)] == [1, 2, 2]
    resumed.write(3, [Entry(make_group(), "")])
    assert [row["step"] for row in lines(path)] == [1, 2, 2, 3]


@pytest.mark.parametrize("tail", [b'{"step": 2', b"x" * 200_000])
def test_appending_after_a_kill_never_glues_two_lines(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n' + tail)
    Journal(path).append([{"step": 2, "whole": True}])
    assert lines(path) == [{"step": 1}, {"step": 2, "whole": True}]


def test_a_file_that_is_only_half_a_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"st')
    journal = Journal(path)
    assert list(journal.rows()) == []
    journal.append([{"step": 1}])
    assert lines(path) == [{"step": 1}]


def test_quarantine_counts_each_entry_once_and_rewinds(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    quarantine.add("a", "decode", "0 bytes", step=1, task="count")
    quarantine.add("a", "decode", "0 bytes", step=1, task="count")
    quarantine.add("b", "encode", "too long", step=2)
    assert quarantine.counts == {"decode": 1, "encode": 1}
    assert quarantine.metrics() == {
        "quarantine/total": 2.0,
        "quarantine/decode": 1.0,
        "quarantine/encode": 1.0,
    }
    resumed = Quarantine(tmp_path)
    assert resumed.counts == {"decode": 1, "encode": 1}
    resumed.truncate_to_step(1)
    assert resumed.counts == {"decode": 1}
    resumed.add("a", "decode", "0 bytes", step=1)
    assert lines(tmp_path / "quarantine.jsonl") == [
        {"step": 1, "id": "a", "task": "count", "stage": "decode", "reason": "0 bytes"}
    ]


def test_a_turn_s_mark_is_on_what_was_seen_last(tmp_path: Path) -> None:
    """Nothing new before the second turn, two screens before the third, one before the last."""
    screens = [image((10 * n, 10), str(n)) for n in (1, 2, 3, 4)]
    group = make_group((screens[0],), ("played",))
    media = [EncodedMedium("screenshot", m.hash, {}, 1, m.frame) for m in screens[1:]]
    observed = Observed(np.zeros((1, 3)), None, tuple(media), (2, 2, 3))
    spans = tuple(TokenSpan(0, 1) for _ in range(4))
    played = dataclasses.replace(
        group.responses[0], observed=observed, episode=Episode(spans, ("a", "b", "c", "d"))
    )
    said = tuple(Mark("point", "answer", (5.0, 5.0), turn=turn) for turn in range(4))
    score = dataclasses.replace(group.scores[0], marks=said)
    group = dataclasses.replace(group, responses=(played,), scores=(score,))
    (line,) = Transcript(tmp_path).write(1, [Entry(group, "asked")])
    marks = line["responses"][0]["marks"]
    assert [mark["medium"] for mark in marks] == [0, 0, 2, 3]
    assert [mark["numbers"][0] for mark in marks] == [0.5, 0.5, 0.16667, 0.125]
