"""A run that goes on says what it has otherwise than it began with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrl.config import RunConfig
from mmrl.data.samples import CHECKED
from mmrl.errors import ConfigError
from mmrl.train.changes import accept, changes, digest, refuse_changes, refuse_records
from mmrl.train.phase_state import say_versions, versions
from mmrl.types import MediaRef, Observation, Sample, Text
from mmrl.validation import validate
from tests.data.test_samples import load
from tests.data.test_tables import jsonl

BASE: dict[str, Any] = {
    "run": "runs/a",
    "model": {"path": "m"},
    "data": {"task": "digit_count", "path": "a.jsonl"},
    "algorithm": {"name": "grpo", "group_size": 4},
    "trainer": {"steps": 4},
}


def config(**sections: Any) -> RunConfig:
    merged = {
        name: {**BASE[name], **values} if isinstance(values, dict) else values
        for name, values in sections.items()
    }
    return validate(RunConfig, {**BASE, **merged}, "test")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(config().to_yaml())
    return tmp_path


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"optimizer": {"learning_rate": 4e-3}}, "optimizer.learning_rate 1e-06 -> 0.004"),
        ({"algorithm": {"group_size": 8}}, "algorithm.group_size 4 -> 8"),
        ({"algorithm": {"kl_coefficient": 0.1}}, "algorithm.kl_coefficient unset -> 0.1"),
        ({"seed": 9}, "seed 0 -> 9"),
        ({"rollout": {"temperature": 0.7}}, "rollout.temperature 1.0 -> 0.7"),
        ({"data": {"task": "digit_box"}}, "data.0.task digit_count -> digit_box"),
        ({"data": {"params": {"think": "none"}}}, "data.0.params.think unset -> none"),
        ({"data": {"weights": {"accuracy": 2}}}, "data.0.weights.accuracy unset -> 2.0"),
        ({"model": {"path": "n"}}, "model.path m -> n"),
        ({"trainer": {"prompts_per_step": 2}}, "trainer.prompts_per_step 8 -> 2"),
        ({"phases": [{"algorithm": {"name": "sft"}}]}, "phases.0.algorithm.name unset -> sft"),
    ],
)
def test_what_makes_it_another_run_is_named_and_refused(
    sections: dict[str, Any], said: str, run: Path
) -> None:
    if "optimizer" in sections or "rollout" in sections:
        now = validate(RunConfig, {**BASE, **sections}, "test")
    else:
        now = config(**sections)
    with pytest.raises(ConfigError, match="pass --allow-changes") as error:
        refuse_changes(run, now, allowed=False)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert said in refuse_changes(run, now, allowed=True)


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"path": "elsewhere/a.jsonl", "eval_path": "b.jsonl"}},
        {"trainer": {"steps": 8, "checkpoint_every": 1, "keep_checkpoints": 5, "eval_every": 2}},
        {"trainer": {"trackers": ["wandb"], "tokens_per_micro_batch": 64}},
        {"critic": {"path": "gone"}},
        {"rollout": {"scoring_workers": 5, "servers": {"urls": ["http://a"]}, "parity_every": 3}},
        {"model": {"gradient_checkpointing": True}},
    ],
)
def test_where_and_how_long_it_works_is_free_and_said(sections: dict[str, Any], run: Path) -> None:
    before = (run / "config.yaml").read_text()
    now = (
        validate(RunConfig, {**BASE, **sections}, "test")
        if "rollout" in sections or ("critic" in sections)
        else config(**sections)
    )
    said: list[str] = []
    accept(run, now, 4, False, said.append)
    assert len(said) == 1 and said[0].startswith("changed from step 5 on: ")
    assert (run / "config_until_step_4.yaml").read_text() == before
    assert yaml.safe_load((run / "config.yaml").read_text()) == now.model_dump(mode="json")


def test_a_start_that_made_no_step_does_not_hide_what_was(run: Path) -> None:
    before = (run / "config.yaml").read_text()
    for seed in (1, 2):
        accept(run, config(seed=seed), 4, True, [].append)
    assert (run / "config_until_step_4.yaml").read_text() == before


def test_nothing_changed_is_nothing_said(run: Path) -> None:
    said: list[str] = []
    accept(run, config(run="runs/moved"), 4, False, said.append)
    assert said == [] and [path.name for path in run.iterdir()] == ["config.yaml"]


def test_a_configuration_of_another_version_is_compared_where_it_can_be(run: Path) -> None:
    old = config().model_dump(mode="json")
    old["trainer"]["of_old"] = 1
    old["seed"] = 5
    (run / "config.yaml").write_text(yaml.safe_dump(old))
    found = changes(run, config())
    assert found["seed"] == "seed 5 -> 0"
    assert found["trainer.of_old"] == "trainer.of_old 1 -> unset"


def sample(**changed: Any) -> Sample:
    parts = (MediaRef("image", Path("/here/images/1.png")), Text("How many?"))
    whole = Sample("a", "t", parts, {"count": 2, "of": frozenset({"x", "y", "z"})}, target="2")
    return replace(whole, **changed)


CHANGED: list[Callable[[], Sample]] = [
    lambda: sample(id="b"),
    lambda: sample(gold={"count": 3, "of": frozenset({"x", "y", "z"})}),
    lambda: sample(parts=(MediaRef("image", Path("/here/images/2.png")), Text("How many?"))),
    lambda: sample(parts=(MediaRef("image", b"123"), Text("How many?"))),
    lambda: sample(parts=(Text("How many?"), MediaRef("image", Path("/here/images/1.png")))),
    lambda: sample(parts=(Text("How few?"),)),
    lambda: sample(system="Be brief."),
    lambda: sample(target="3"),
    lambda: sample(meta={"pass_rate": 0.5}),
    lambda: sample(start=Observation({"at": 1}, "start"), turns=3),
    lambda: sample(turns=2),
]


@pytest.mark.parametrize("change", CHANGED)
def test_a_digest_tells_records_apart(change: Callable[[], Sample]) -> None:
    assert digest([sample()]) == digest([sample()])
    assert digest([change()]) != digest([sample()])


def test_a_digest_knows_order_but_not_the_folder() -> None:
    one, other = sample(), sample(id="b")
    assert digest([one, other]) != digest([other, one])
    moved = (MediaRef("image", Path("/there/images/1.png")), Text("How many?"))
    assert digest([sample(parts=moved)]) == digest([sample()])


def test_a_digest_knows_the_size_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "1.png"
    of_file = sample(parts=(MediaRef("image", file), Text("How many?")))
    gone = digest([of_file])
    file.write_bytes(b"123")
    there = digest([of_file])
    file.write_bytes(b"1234")
    assert len({gone, there, digest([of_file])}) == 3


def test_a_digest_reads_the_ids_of_all_records_and_the_first_of_them(tmp_path: Path) -> None:
    """A record that is no use is passed over, where it is read and where it is not."""
    told = []
    for change in ({}, {1050: {"id": "other", "prompt": "q"}}, {5: {"id": 5, "prompt": "why"}}):
        table = {i: {"id": i, "prompt": f"q{i}"} for i in range(CHECKED + 100)}
        table |= {500: {"id": 500}, 1060: {"id": 1060}} | change
        samples, rejected = load(jsonl(tmp_path / "d.jsonl", list(table.values())), looked_at=10)
        told += [digest(samples), digest(samples)]
        assert list(rejected) == ["500"]
    assert told[::2] == told[1::2] and len(set(told)) == 3


def test_a_digest_does_not_know_where_an_object_lies() -> None:
    assert digest([sample(gold=[object()])]) == digest([sample(gold=[object()])])


def test_other_records_are_refused_unless_allowed() -> None:
    said: list[str] = []
    refuse_records({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, allowed=False, say=said.append)
    refuse_records({}, {"a": "1"}, allowed=False, say=said.append)
    assert said == []
    with pytest.raises(ConfigError, match=r"the records of b are not those .*--allow-changes"):
        refuse_records({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, allowed=False, say=said.append)
    refuse_records({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, allowed=True, say=said.append)
    assert len(said) == 1


def test_other_packages_are_said() -> None:
    said: list[str] = []
    here = versions()
    say_versions(here, said.append)
    say_versions({}, said.append)
    assert said == []
    say_versions({**here, "torch": "1.0"}, said.append)
    assert f"torch 1.0 -> {here['torch']}" in said[0] and "numpy" not in said[0]
