"""The stripes are gone at first sight and there in a zoom; the control shows the whole again."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.frame import Frame
from mmrl.policy.model_folder import model_folder
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, MediaRef, Observation, Record, Sample
from tests.conftest import TINY

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        yield importlib.import_module("learn_zoom")


@pytest.fixture(scope="module")
def seen(tool: ModuleType) -> Callable[[Image.Image], np.ndarray]:
    """What the model's own processor makes of a picture, in levels of 0-255."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(model_folder(TINY))
    budget = {"shortest_edge": 56 * 56, "longest_edge": tool.SEEN**2}
    deviation = min(processor.image_std)

    def process(picture: Image.Image) -> np.ndarray:
        values = processor(images=picture, size=budget, return_tensors="np")["pixel_values"]
        return np.asarray(values, np.float64) * deviation * 255

    return process


@pytest.mark.parametrize(("corner", "grey"), [((0, 0), 112), ((448, 224), 128), ((448, 448), 144)])
def test_the_first_look_has_the_frame_and_not_the_stripes(
    tool: ModuleType, seen: Callable[[Image.Image], np.ndarray], corner: tuple[int, int], grey: int
) -> None:
    from small_detail import FIELD, WAYS, picture

    x, y = corner
    pictures = [picture(way, corner, grey) for way in WAYS]
    first = [seen(whole) for whole in pictures]
    zoomed = [seen(whole.crop((x, y, x + FIELD, y + FIELD))) for whole in pictures]
    assert first[0].shape == zoomed[0].shape == (6 * 6, 3 * 2 * 14 * 14), "as many pixels"
    for one in range(len(WAYS)):
        for other in range(one):
            assert np.abs(first[one] - first[other]).max() < 1.1, "the last bit"
            assert np.abs(zoomed[one] - zoomed[other]).max() > 100
    assert np.ptp(first[0]) > 60, "the frame is red"


def ask(tool: ModuleType, arm: str, folder: Path) -> tuple[Any, Sample, dict[str, Any]]:
    from small_detail import write

    write(folder / "some.jsonl", 4, 0)
    row = json.loads((folder / "some.jsonl").read_text().splitlines()[2])
    task = load_task(tool.ARMS[arm]["task"], tool.ARMS[arm].get("params"))
    return task, task.ask(Record(row["id"], row, folder)), row


def said(tool: ModuleType, sample: Sample, *turns: str) -> Answer:
    (ref,) = (part for part in sample.parts if isinstance(part, MediaRef))
    frame = Frame((672, 672), (tool.SEEN, tool.SEEN))
    return Answer(
        turns[-1],
        frames=(frame,),
        space="processed_pixels",
        turns=turns,
        screens=(frame,) * len(turns),
        shown=(ref,),
    )


def shown(observation: Observation) -> Image.Image:
    (ref,) = (part for part in observation.parts if isinstance(part, MediaRef))
    source = io.BytesIO(ref.source) if isinstance(ref.source, bytes) else ref.source
    return Image.open(source).convert("RGB")


def test_arms_differ_in_what_a_zoom_shows_alone(tool: ModuleType, tmp_path: Path) -> None:
    seen = {}
    for arm in ("zoom", "uncropped"):
        task, sample, row = ask(tool, arm, tmp_path)
        call = task.target(sample, said(tool, sample, ""))
        x, y, *_ = (corner // 8 for corner in row["box"])
        assert json.loads(call[11:-12])["arguments"] == {"bbox_2d": [x, y, x + 28, y + 28]}
        start = sample.start.state
        observation = task.step(sample.gold, start, said(tool, sample, call))
        seen[arm] = (sample.parts, observation.parts[0], observation.state, observation.done)
        whole = Image.open(tmp_path / row["image"]).convert("RGB")
        right = whole.crop(tuple(row["box"])) if arm == "zoom" else whole
        assert np.array_equal(np.asarray(shown(observation)), np.asarray(right)), arm
        beyond = call.replace(str([x, y, x + 28, y + 28]), "[100, 100, 200, 200]")
        refused = task.step(sample.gold, start, said(tool, sample, beyond))
        assert "not in the picture" in refused.text and not refused.parts
        moved = replace(sample, start=observation)
        answer = task.target(moved, said(tool, sample, call, ""))
        assert answer == f"<answer>{row['way']}</answer>"
        assert task.score(sample.gold, said(tool, sample, call, answer)).metric == 1.0
        assert task.score(sample.gold, said(tool, sample, answer, call)).metric == 0.0
    assert seen["zoom"] == seen["uncropped"]


def test_without_tools_there_is_one_turn(tool: ModuleType, tmp_path: Path) -> None:
    _, sample, row = ask(tool, "none", tmp_path)
    assert sample.start is None and sample.target == f"<answer>{row['way']}</answer>"


def test_the_table_has_every_seed_and_the_mean(tool: ModuleType) -> None:
    runs = [{"seed": s, "before": 0.5, "after": after} for s, after in ((3, 0.7), (5, 0.9))]
    assert tool.table({"zoom": runs}).splitlines() == [
        "| arm | before | seed 3 | seed 5 | mean |",
        "|---|---|---|---|---|",
        "| `zoom` | 50.0% | 70.0% | 90.0% | 80.0% |",
    ]


def test_the_command_goes_from_records_to_the_table(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A step of each phase; what is there is not made again."""
    for name, value in {"READY": 0.0, "EVERY": 1, "TRAIN": 16, "TEST": 4}.items():
        monkeypatch.setattr(tool, name, value)
    asked = ["--arms", "uncropped", "none", "--seeds", "4", "--steps", "1", "--sft-steps", "1"]
    monkeypatch.setattr("sys.argv", ["learn_zoom.py", "--out", str(tmp_path), *asked])
    tool.main()
    first = capsys.readouterr().out.splitlines()
    assert first[-4] == "| arm | before | seed 4 | mean |"
    assert [line.split()[1] for line in first[-2:]] == ["`uncropped`", "`none`"]
    assert json.loads((tmp_path / "uncropped-4" / "result.json").read_text())["steps"] == 1
    runs = sorted(path.name for path in tmp_path.iterdir() if (path / "result.json").is_file())
    assert runs == ["none-4", "sft-none", "sft-zoom", "uncropped-4"]
    monkeypatch.setattr("mmrl.train.run.train", lambda *_, **__: pytest.fail("made again"))
    tool.main()
    assert capsys.readouterr().out.splitlines()[-4:] == first[-4:]
