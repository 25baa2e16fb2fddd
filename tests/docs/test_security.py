"""Promises of SECURITY.md: each names a test that exists; those that stood nowhere are here."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmrl.config import load_config
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import load_policy
from mmrl.records import media_source
from mmrl.types import Record
from tests.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
PROMISES = re.findall(r"^\| .*::.* \|$", (ROOT / "SECURITY.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda row: row.split("|")[1].strip())
def test_every_promise_has_its_test(promise: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
    assert named and len(named) == promise.count("::")
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{file}::{test}"


def test_there_are_promises() -> None:
    table = (ROOT / "SECURITY.md").read_text("utf-8").partition("## Promises")[2]
    rows = [line for line in table.partition("## What")[0].splitlines() if line.startswith("| ")]
    assert len(rows) == len(PROMISES) + 1 > 12, "a promise without a test, or no promise"


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/hostname", "images/../../secret.png", "./../data2/x.png"]
)
def test_a_path_in_a_record_cannot_leave_its_folder(path: str, tmp_path: Path) -> None:
    record = Record("1", {}, tmp_path / "data")
    for value in (path, {"path": path, "bytes": None}):
        with pytest.raises(ValueError, match="leaves the data folder"):
            media_source(record, value)


class Touches:
    """Pickled, it creates a file where it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    shutil.copytree(model_folder(TINY), tmp_path / "model")
    return tmp_path / "model"


def test_code_in_a_model_folder_does_not_run(folder: Path, tmp_path: Path) -> None:
    """The model still loads, by the library's own class."""
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    settings = (folder / "config.json").read_text()
    names = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor")
    own = ", ".join(f'"{name}": "own.Own"' for name in names)
    (folder / "config.json").write_text(settings.replace("{", f'{{"auto_map": {{{own}}},', 1))
    load_policy(ModelConfig(path=str(folder)))
    assert not mark.exists()


def test_pickled_weights_run_no_code(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Touches(mark)}))
    with pytest.raises((UserError, pickle.UnpicklingError)):
        load_policy(ModelConfig(path=str(folder)))
    assert not mark.exists()
    pickle.loads(pickle.dumps(Touches(mark)))
    assert mark.exists(), "the file would have been made"


@pytest.mark.parametrize("tag", ["!!python/object/apply:pathlib.Path.touch", "!!python/name:eval"])
def test_a_configuration_builds_no_objects(tag: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"run: {tag} [{tmp_path / 'ran'}]\n")
    with pytest.raises(UserError, match="not YAML"):
        load_config(config)
    assert not (tmp_path / "ran").exists()


def test_models_are_loaded_from_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing looks an address up, neither for a folder nor for a name that a hub would know."""

    def refuse(*words: Any, **options: Any) -> Any:
        raise AssertionError(f"a look-up of {words}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    load_policy(ModelConfig(path=TINY))
    with pytest.raises(UserError, match="no model at"):
        load_policy(ModelConfig(path="Qwen/Qwen2.5-VL-3B-Instruct"))
