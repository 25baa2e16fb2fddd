"""A user's mistake in a configuration is one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmrl.config import RunConfig, load_config
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.validation import validate

MINIMAL = """
run: runs/x
model: {path: m}
data: {task: digit_count, path: d.jsonl}
trainer: {steps: 2}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL)
    return path


def test_overrides_are_yaml_and_reach_every_section(config_file: Path) -> None:
    config = load_config(
        config_file,
        ["algorithm.group_size=4", "seed=7", "rollout.temperature=0.5", "data.path=other.jsonl"],
    )
    assert config.algorithm["group_size"] == 4
    assert (config.seed, config.rollout.temperature) == (7, 0.5)
    assert config.data[0].path == Path("other.jsonl")


def test_several_sources_keep_their_order_and_take_overrides_by_index(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        MINIMAL.replace("data: {", "data: [{").replace("d.jsonl}", "a}, {task: t, path: b}]")
    )
    config = load_config(path, ["data.1.path=z"])
    assert [str(source.path) for source in config.data] == ["a", "z"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.step=3", "unknown key 'trainer.step': did you mean 'steps'?"),
        ("rollout.temprature=1", "unknown key 'rollout.temprature': did you mean 'temperature'?"),
        ("data.pth=1", "unknown key 'data.0.pth': did you mean 'path'?"),
        ("tainer.steps=1", "unknown key 'tainer': did you mean 'trainer'?"),
        ("algorithm=gspo", "'algorithm': it is a section of options: write algorithm.name=gspo"),
        ("rollout.temperature=0", "'rollout.temperature': input should be greater than 0"),
        ("trainer.steps=many", "'trainer.steps': input should be a valid integer"),
        ("seed", "write it as section.key=value"),
        ("run.deep=1", "run is not a section"),
        ("seed=[1", "the value is not YAML"),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(
    config_file: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        load_config(config_file, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("- 1", "expected sections"),
        ("run: x", "'model' is required"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config file"):
        load_config(tmp_path / "none.yaml")


def test_the_resolved_form_loads_to_the_same_configuration(
    config_file: Path, tmp_path: Path
) -> None:
    config = load_config(config_file)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(config.to_yaml())
    assert load_config(resolved) == config


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({"freeze_projector": True, "lora": {"tower": "trained"}}, "freeze_projector and lora"),
        ({"freeze_tower": True, "lora": {"tower": "trained"}}, "freeze_tower and lora"),
        ({"freeze_language": True, "lora": {}}, "freeze_language and lora"),
        (
            {"freeze_tower": True, "freeze_projector": True, "freeze_language": True},
            "nothing would learn",
        ),
    ],
    ids=str,
)
def test_what_is_frozen_cannot_learn(model: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        validate(ModelConfig, {"path": "m", **model}, "here")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"path": "m", "dtype": "float16"}}, "x: model.dtype: float16 is for evaluation"),
        (
            {
                "optimizer": {"moments": "bfloat16"},
                "trainer": {"steps": 1, "backend": "deepspeed", "deepspeed": "x.json"},
            },
            "x: optimizer.moments=bfloat16 is for trainer.backend=local",
        ),
    ],
)
def test_a_precision_that_does_not_train_is_refused_in_a_line(
    sections: dict[str, Any], message: str
) -> None:
    values = {"run": "r", "model": {"path": "m"}, "data": {"task": "t", "path": "p"}}
    with pytest.raises(UserError) as error:
        validate(RunConfig, {**values, "trainer": {"steps": 1}, **sections}, "x")
    assert str(error.value).startswith(message) and "got {" not in str(error.value)
