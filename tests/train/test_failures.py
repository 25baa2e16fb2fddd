"""Invariant 3: a run fails in one line or counts what it left out; it never drops silently."""

from __future__ import annotations

import errno
import importlib.util
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmrl.config import RunConfig
from mmrl.errors import ConfigError, TrainingError, UserError
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import Policy
from mmrl.runlog.journal import Journal
from mmrl.train.run import train
from mmrl.validation import validate
from tests.conftest import TINY
from tests.modalities.test_image import bomb
from tests.runs import make_digits, run_config


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return make_digits(tmp_path / "digits", train=8, test=4)


def start(folder: Path, digits: Path, **sections: Any) -> dict[str, Any]:
    return train(validate(RunConfig, run_config(folder, digits, **sections), "test"))


def resume(folder: Path, digits: Path, **sections: Any) -> dict[str, Any]:
    config = validate(RunConfig, run_config(folder, digits, **sections), "test")
    return train(config, resume=True)


def quarantined(run: Path) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in Journal(run / "quarantine.jsonl").rows()}


def metrics(run: Path) -> list[dict[str, Any]]:
    return list(Journal(run / "metrics.jsonl").rows())


def damage(digits: Path) -> dict[str, str]:
    """Make five of the eight training records unusable; returns the expected reasons by id."""
    path = digits / "digit_count" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    images = [digits / "digit_count" / row["image"] for row in rows]
    images[0].write_bytes(images[0].read_bytes()[:400])
    images[1].write_bytes(bomb(60_000, 60_000))
    images[2].unlink()
    Image.new("RGB", (6000, 12)).save(images[3])
    rows[4]["count"] = "several"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reasons = ("damaged image", "decompression bomb", "no image at", "max_aspect_ratio", "several")
    return {row["id"]: reason for row, reason in zip(rows, reasons, strict=False)}


def test_bad_records_are_quarantined_with_their_reasons(tmp_path: Path, digits: Path) -> None:
    expected = damage(digits)
    run = tmp_path / "run"
    most = {"max_unusable_share": 1.0}
    start(run, digits, data=most, trainer={"steps": 3, "prompts_per_step": 4})
    found = quarantined(run)
    assert found.keys() == expected.keys()
    for record, reason in expected.items():
        assert reason in found[record]
    rows = metrics(run)
    assert rows[-1]["quarantine/total"] >= len(expected), "each time one is drawn, it counts"
    assert all(row["prompts/kept"] == 4 for row in rows), "a bad record is replaced by a good one"
    assert all(row["media/without"] == 0 for row in rows)
    trained = {i for row in Journal(run / "consumed.jsonl").rows() for i in row["ids"]}
    assert not trained & expected.keys()


def test_data_without_a_usable_medium_stops_the_run(tmp_path: Path, digits: Path) -> None:
    for image in (digits / "digit_count" / "images").glob("*train*"):
        image.write_bytes(b"")
    with pytest.raises(UserError, match=r"4 of 4 samples cannot be used.*4 of them: empty image"):
        start(tmp_path / "run", digits)
    with pytest.raises(UserError, match=r"every sample drawn is unusable; quarantine.jsonl"):
        start(tmp_path / "other", digits, data={"max_unusable_share": 1.0})


def test_half_the_pictures_missing_is_told_before_a_model_is_loaded(
    tmp_path: Path, digits: Path
) -> None:
    for image in sorted((digits / "digit_count" / "images").glob("*train*"))[::2]:
        image.unlink()
    few = {"path": "nowhere"}
    with pytest.raises(UserError, match=r"4 of 8 records cannot be asked") as told:
        start(tmp_path / "run", digits, data={"max_unusable_share": 0.2}, model=few)
    assert "4 of them: ValueError: no image at" in str(told.value)


def test_a_prompt_over_the_limit_is_quarantined_whole(tmp_path: Path, digits: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"over model[.]max_prompt_tokens=20"):
        start(run, digits, model={"max_prompt_tokens": 20})
    assert all("over model.max_prompt_tokens=20" in why for why in quarantined(run).values())


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(
    tmp_path: Path, digits: Path
) -> None:
    with pytest.raises(UserError, match=r"not finite: lower optimizer\.learning_rate"):
        start(
            tmp_path / "run",
            digits,
            optimizer={"learning_rate": 1e30},
            trainer={"steps": 8, "checkpoint_every": 1},
        )


def test_verifier_failures_stop_the_run_above_the_share(tmp_path: Path, digits: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text(json.dumps({"prompt": "How many?"}) + "\n")
    custom = {
        "task": "custom",
        "path": str(records),
        "params": {"function": "tests.verifiers:always_raises"},
        "eval_path": None,
    }
    with pytest.raises(UserError, match=r"the reward fails on every answer, .*no verdict"):
        start(tmp_path / "run", digits, data=custom)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"task": "digit_cuont"}}, "did you mean 'digit_count'?"),
        ({"data": {"path": "nowhere.jsonl"}}, "no data file at nowhere.jsonl"),
        ({"data": {"params": {"treshold": 1}}}, "has no parameter 'treshold'"),
        ({"data": {"weights": {"acuracy": 1}}}, "has no reward part 'acuracy'"),
        ({"algorithm": {"name": "grop"}}, "did you mean 'grpo'?"),
        ({"algorithm": {"group_sise": 4}}, "did you mean 'group_size'?"),
        ({"model": {"path": "nowhere"}}, "no model at nowhere"),
        ({"model": {"family": "qwen9"}}, "unknown family 'qwen9'"),
    ],
)
def test_mistakes_name_what_is_wrong(
    tmp_path: Path, digits: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        start(tmp_path / "run", digits, **change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "empty.jsonl: it holds no records"),
        ("cut.jsonl", b'{"id": "1", "count": 2, "ima', "cut.jsonl:1: not JSON"),
        ("list.jsonl", b"[1, 2]\n", "list.jsonl:1: expected an object, found list"),
        ("gap.jsonl", b'{"count": 2}\n\n3\n', "gap.jsonl:3: expected an object, found int"),
        ("deep.jsonl", b"[" * 200_000, "deep.jsonl:1: not JSON"),
        ("long.jsonl", b'{"count": ' + b"9" * 5000 + b"}", "long.jsonl:1: not JSON"),
        ("binary.jsonl", b"\xff\xfe\x00\x01", "binary.jsonl:1: not UTF-8 text"),
        ("cut.parquet", b"PAR1 and no more", "cut.parquet: not a whole parquet file"),
        ("records.xlsx", b"id,count\n", "cannot read '.xlsx' files; use one of .jsonl"),
    ],
)
def test_a_data_file_that_cannot_be_read_is_named(
    tmp_path: Path, digits: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        start(tmp_path / "run", digits, data={"path": str(tmp_path / name)})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b'{"model_type": "qwen2'),
        ("config.json", b'{"model_type": "no_such_type"}'),
        ("model.safetensors", b"\x10\x00 cut"),
        ("model.safetensors", None),
        ("processor_config.json", None),
    ],
)
def test_a_model_folder_that_cannot_be_loaded_is_named(
    tmp_path: Path, digits: Path, file: str, content: bytes | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder(TINY), folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{folder}") as error:
        start(tmp_path / "run", digits, model={"path": str(folder)})
    assert "\n" not in str(error.value)


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file is a file: choose another run="):
        start(tmp_path / "file", digits)
    with pytest.raises(UserError, match=r"cannot be written .*: choose another run="):
        start(tmp_path / "file" / "run", digits)


def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, trainer = tmp_path / "run", {"steps": 2, "checkpoint_every": 1}
    start(run, digits, trainer=trainer)
    folders = [run / "checkpoints" / f"step_{step}" for step in (1, 2)]
    weights = (folders[1] / "model.safetensors").read_bytes()
    flipped = bytearray(weights)
    flipped[len(flipped) // 2] ^= 16
    (folders[1] / "model.safetensors").write_bytes(flipped)
    capsys.readouterr()
    assert resume(run, digits, trainer=trainer)["steps"] == 2
    said = capsys.readouterr().err
    assert "step_2 is damaged (model.safetensors is not what was written)" in said
    assert "resumed after step 1\n" in said
    assert (folders[1] / "model.safetensors").read_bytes() == weights
    (folders[1] / "trainer" / "optimizer.safetensors").unlink()
    (folders[0] / "config.json").unlink()
    with pytest.raises(TrainingError, match=r"step_2 is damaged .*optimizer.* no sound one before"):
        resume(run, digits, trainer=trainer)


def test_a_run_is_replaced_once_the_new_one_has_made_a_step(tmp_path: Path, digits: Path) -> None:
    run = tmp_path / "run"
    start(run, digits, trainer={"steps": 1})
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({"id": "1"}) + "\n")
    late: list[dict[str, Any]] = [
        {"model": {"path": "nowhere"}},
        {"data": {"path": str(broken)}},
        {"data": {"params": {"treshold": 1}}},
        {"trainer": {"trackers": ["mlflow"]}},
    ]
    for sections in late:
        config = validate(RunConfig, run_config(run, digits, **sections), "test")
        with pytest.raises(UserError):
            train(config, overwrite=True)
        assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    config = validate(RunConfig, run_config(run, digits, trainer={"steps": 2}), "test")
    assert train(config, overwrite=True)["steps"] == 2
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_2"]
    assert not (tmp_path / "run.replaced").exists()


def test_a_changed_run_is_refused_until_it_is_allowed(
    tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, trainer = tmp_path / "run", {"steps": 1}
    start(run, digits, trainer=trainer)
    config = run_config(run, digits, trainer={"steps": 2}, optimizer={"learning_rate": 2e-4})
    other = validate(RunConfig, config, "test")
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate 0.0001 -> 0.0002; undo it"):
        train(other, resume=True)
    assert "learning_rate: 0.0001" in (run / "config.yaml").read_text()
    records = digits / "digit_count" / "train.jsonl"
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    rows[0]["count"] += 1
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="the records of digit_count are not those"):
        resume(run, digits, trainer={"steps": 2})
    capsys.readouterr()
    assert train(other, resume=True, allow_changes=True)["steps"] == 2
    said = capsys.readouterr().err
    assert "changed from step 2 on: optimizer.learning_rate 0.0001 -> 0.0002" in said
    assert "the records of digit_count are not those" in said
    assert "learning_rate: 0.0001" in (run / "config_until_step_1.yaml").read_text()


def test_a_full_disk_is_one_line(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Policy, "save", full)
    with pytest.raises(TrainingError, match=r"^no space left .*: `--resume` goes on"):
        start(tmp_path / "run", digits, trainer={"steps": 1})


def test_weights_that_the_system_does_not_take_are_one_line(tmp_path: Path, digits: Path) -> None:
    """What writes them raises an error of its own; a limit on files stands in for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(TrainingError, match=r"^no space left .*os error 27.*: `--resume`"):
            start(tmp_path / "run", digits, trainer={"steps": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert resume(tmp_path / "run", digits, trainer={"steps": 1})["steps"] == 1


def want_placeholders(policy: Policy) -> None:
    """Bend the LM head until the image placeholder is by far the likeliest token."""
    head = policy.model.get_output_embeddings()
    placeholder = policy.family.placeholder_ids[0]
    head.register_forward_hook(
        lambda module, args, logits: logits.index_fill(
            -1, torch.tensor([placeholder], device=logits.device), 1e4
        )
    )


def test_a_policy_that_wants_placeholders_trains_on(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmrl.train import model_parts

    load: Callable[..., Policy] = model_parts.load_policy

    def bent(*args: Any, **options: Any) -> Policy:
        policy = load(*args, **options)
        want_placeholders(policy)
        return policy

    monkeypatch.setattr(model_parts, "load_policy", bent)
    start(tmp_path / "run", digits, trainer={"steps": 2})
    rollouts = Journal(tmp_path / "run" / "rollouts.jsonl").rows()
    assert all("<|image_pad|>" not in r["text"] for row in rollouts for r in row["responses"])


def test_a_folder_that_holds_no_run_is_never_replaced(tmp_path: Path, digits: Path) -> None:
    config = validate(RunConfig, run_config(digits, digits), "test")
    with pytest.raises(UserError, match="holds no run"):
        train(config, overwrite=True)
    assert (digits / "digit_count" / "train.jsonl").is_file()


SHARDED = {"backend": "deepspeed", "deepspeed": "configs/deepspeed/zero2.json"}
QUANTISED = {"lora": {"rank": 2, "quantize": "nf4"}}


@pytest.mark.parametrize(
    ("sections", "package", "extra"),
    [
        ({"rollout": {"engine": "vllm"}}, "vllm", "vllm"),
        ({"rollout": {"engine": "vllm_server"}}, "vllm", "vllm"),
        ({"trainer": SHARDED}, "deepspeed", "deepspeed"),
        ({"model": {"lora": {"rank": 2}}}, "peft", "lora"),
        ({"model": QUANTISED}, "bitsandbytes", "qlora"),
    ],
    ids=["vllm", "servers", "deepspeed", "adapters", "quantised"],
)
def test_an_absent_package_is_one_line_that_names_its_extra(
    sections: dict[str, Any],
    package: str,
    extra: str,
    tmp_path: Path,
    digits: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else present(name)
    )
    said = rf"needs {package}: pip install 'mmrl\[{extra}\]'"
    with pytest.raises(UserError, match=said) as error:
        start(tmp_path / "run", digits, **sections)
    assert "\n" not in str(error.value)
