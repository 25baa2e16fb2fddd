"""A checkpoint knows what was written into it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from mmrl.errors import TrainingError
from mmrl.train import checkpoint
from mmrl.train.checkpoint_files import damage, folder_of, newest, whole, write_checksums


def made(run: Path, step: int) -> Path:
    folder = folder_of(run, step)
    (folder / "trainer").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "trainer/state.json", "trainer/a.safetensors"):
        (folder / name).write_bytes(f"{name} {step}".encode())
    write_checksums(
        folder, {"model.safetensors": sha256(f"model.safetensors {step}".encode()).hexdigest()}
    )
    return folder


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "trainer/state.json", "trainer/a.safetensors"]
)
def test_any_harm_to_any_file_is_named(harm: object, name: str, tmp_path: Path) -> None:
    folder = made(tmp_path, 1)
    assert damage(folder) == ""
    harm(folder / name)  # type: ignore[operator]
    assert damage(folder).startswith(name)


def test_files_of_another_step_are_noticed(tmp_path: Path) -> None:
    one, two = made(tmp_path, 1), made(tmp_path, 2)
    (two / "model.safetensors").write_bytes((one / "model.safetensors").read_bytes())
    assert damage(two) == "model.safetensors is not what was written"


def test_checksums_that_cannot_be_read_are_damage(tmp_path: Path) -> None:
    folder = made(tmp_path, 1)
    (folder / "trainer" / "checksums.json").write_text("{")
    assert "JSONDecodeError" in damage(folder)


def test_a_damaged_checkpoint_makes_way_for_the_one_before(tmp_path: Path) -> None:
    folders = {step: made(tmp_path, step) for step in (2, 4, 6, 10)}
    flip(folders[10] / "config.json")
    (folders[6] / "model.safetensors").unlink()
    said: list[str] = []
    found = checkpoint.latest_sound(tmp_path, said.append)
    assert found is not None and found.step == 4
    assert [path.name for path in whole(tmp_path)] == ["step_2", "step_4"]
    assert len(said) == 2 and "step_10 is damaged (config.json is not what was written)" in said[0]
    assert newest(tmp_path) == folders[4]


def test_where_none_is_sound_all_stay(tmp_path: Path) -> None:
    flip(made(tmp_path, 1) / "config.json")
    with pytest.raises(TrainingError, match="no sound one before it") as error:
        checkpoint.latest_sound(tmp_path, print)
    assert "\n" not in str(error.value)
    assert [path.name for path in whole(tmp_path)] == ["step_1"]


def test_a_checkpoint_whose_writer_was_killed_while_it_replaced_it_is_found(tmp_path: Path) -> None:
    folder = made(tmp_path, 3)
    folder.rename(folder.with_name(".before_step_3"))
    found = checkpoint.latest_sound(tmp_path, print)
    assert found is not None and found.path == folder


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoint.latest_sound(tmp_path, print) is None
