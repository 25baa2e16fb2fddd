"""A run of two steps leaves a table with pictures in every tracker; a failing one ends no run.

The packages are optional: where one is missing, its test is passed over.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.config import RunConfig
from mmrl.runlog import trackers
from mmrl.runlog.answer_table import HEIGHT, answer_table
from mmrl.runlog.journal import Journal
from mmrl.train.run import train
from mmrl.validation import validate
from tests.runs import make_digits, run_config


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"), train=8, test=2)


def tracked(folder: Path, digits: Path, tracker: str) -> list[dict[str, Any]]:
    """Run two steps with a tracker; returns what the run's own transcript has of them."""
    config = run_config(folder, digits)
    del config["data"]["eval_path"]
    config["algorithm"] = {"name": "grpo", "group_size": 2}
    config["trainer"] = {"steps": 2, "prompts_per_step": 2, "trackers": [tracker]}
    train(validate(RunConfig, config, "test"))
    return list(Journal(folder / "rollouts.jsonl").rows())


def answers_of(groups: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    return [(g["step"], r["text"], r["reward"]) for g in groups for r in g["responses"]]


def seen(picture: Any) -> None:
    """A picture of some height, and not of one colour."""
    array = np.asarray(picture)
    assert array.shape[0] == HEIGHT and array.std() > 5


def test_tensorboard_holds_the_table(tmp_path: Path, digits: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    groups = tracked(tmp_path / "run", digits, "tensorboard")
    found = reading.EventAccumulator(
        str(tmp_path / "run" / "tensorboard"), {"tensors": 0, "images": 0, "scalars": 0}
    )
    found.Reload()
    texts = found.Tensors("answers/text_summary")
    assert [text.step for text in texts] == [1, 2]
    for text in texts:
        head, _, *rows = text.tensor_proto.string_val[0].decode().splitlines()
        assert head.startswith("| step | id | prompt | picture | answer | reward | part accuracy |")
        cells = [row.strip("| ").split(" | ") for row in rows]
        assert len(cells) == 4 and {row[3] for row in cells} == {"0", "1"}
        for number in ("0", "1"):
            (image,) = [i for i in found.Images(f"answers/picture {number}") if i.step == text.step]
            seen(Image.open(io.BytesIO(image.encoded_image_string)))
    assert len(answers_of(groups)) == 8
    assert [s.value for s in found.Scalars("reward/mean")]


def test_wandb_holds_the_table(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb"))
    groups = tracked(tmp_path / "run", digits, "wandb")
    # What `wandb sync` uploads: tables with the digests of their pictures, and those.
    kept = [path.read_bytes() for path in (tmp_path / "wandb").rglob("staging/*")]
    files = {sha256(content).hexdigest(): content for content in kept}
    tables = [json.loads(c) for c in files.values() if c.startswith(b'{"_type": "table"')]
    found = []
    for table in tables:
        place = {name: i for i, name in enumerate(table["columns"])}
        for row in table["data"]:
            found.append((row[place["step"]], row[place["answer"]], row[place["reward"]]))
            seen(Image.open(io.BytesIO(files[row[place["picture"]]["sha256"]])))
    assert sorted(found) == sorted(answers_of(groups))


def test_trackio_holds_the_table(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    groups = tracked(tmp_path / "run", digits, "trackio")
    logs = trackio.Api().runs("mmrl")[0]
    found = []
    for row in trackio_rows(logs):
        found.append((row["step"], row["answer"], row["reward"]))
        (file,) = (tmp_path / "trackio").rglob(Path(row["picture"]["file_path"]).name)
        seen(Image.open(file))
    assert sorted(found) == sorted(answers_of(groups))


def trackio_rows(run: Any) -> list[dict[str, Any]]:
    """The rows of the tables in a run of trackio's store."""
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("mmrl", run.name)
    return [row for log in logs if "answers" in log for row in log["answers"]["_value"]]


def test_mlflow_holds_the_table(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    groups = tracked(tmp_path / "run", digits, "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("mmrl").experiment_id])
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    file = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="answers.json", dst_path=str(tmp_path)
    )
    table = json.loads(Path(file).read_text())
    place = {name: i for i, name in enumerate(table["columns"])}
    found = []
    for row in table["data"]:
        found.append((row[place["step"]], row[place["answer"]], row[place["reward"]]))
        picture = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id,
            artifact_path=row[place["picture"]]["filepath"],
            dst_path=str(tmp_path),
        )
        seen(Image.open(picture))
    assert sorted(found) == sorted(answers_of(groups))


class Failing:
    """A tracker whose every call fails, or whose first does."""

    def __init__(self, run: Path, config: Any) -> None:
        if run.name == "at the start":
            raise OSError("no route to host")

    def _fail(self, *arguments: Any) -> None:
        raise RuntimeError("gone")

    log: Callable[..., None] = _fail
    table: Callable[..., None] = _fail
    close: Callable[..., None] = _fail


@pytest.mark.parametrize("when", ["at the start", "always"])
def test_a_failing_tracker_ends_no_run(
    when: str, tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(trackers, "KNOWN", {"broken": Failing})
    monkeypatch.setattr(trackers, "PACKAGES", {"broken": "json"})
    assert len(tracked(tmp_path / when, digits, "broken")) == 4
    said = " ".join(capfd.readouterr().err.split())
    assert said.count("tracker broken failed, the run goes on:") == 1


def test_rows_are_the_first_answers_with_all_their_parts(tmp_path: Path) -> None:
    Image.new("RGB", (40, 80), "red").save(tmp_path / "a.jpg")
    Image.new("RGB", (160, 80), "blue").save(tmp_path / "b.jpg")
    media = [
        {"kind": "image", "thumbnail": "a.jpg"},
        {"kind": "audio", "thumbnail": "c.wav"},
        {"kind": "image", "thumbnail": "b.jpg"},
        {"kind": "image", "thumbnail": None},
    ]
    answers = [
        {"text": "x", "reward": 1.0, "parts": {"right": 1.0}},
        {"text": "y" * 9999, "reward": None, "parts": {"form": 0.5}},
        {"text": "z", "reward": 0.0, "parts": {}},
    ]
    line = {"id": "7", "variant": "", "prompt": "which?", "media": media, "responses": answers}
    table = answer_table(3, [line], tmp_path, 2)
    assert table.columns[-2:] == ("part right", "part form") and len(table.rows) == 2
    first, second = table.rows
    assert [first[0], first[1], first[2], first[4], *first[5:]] == [
        3,
        "7",
        "which?",
        "x",
        1,
        1,
        None,
    ]
    assert len(second[4]) == 2000 and list(second[5:]) == [None, None, 0.5]
    assert first[3] is second[3] and first[3].size == (80 + 4 + 320, HEIGHT)
    plain = {**line, "media": media[1:2]}
    assert answer_table(3, [plain], tmp_path, 1).rows[0][3] is None
