"""Half precision under DeepSpeed: float32 sums, and checkpoints that keep masters on the way."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmrl.backend import masters
from tests.engines.half import MODELS, SHARDINGS, SHARES
from tests.engines.launching import ENVIRONMENT, ROOT, TORCHRUN

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]


def launch(processes: int, *arguments: str) -> None:
    command = [*TORCHRUN, str(processes), "-m", "tests.engines.half", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    launch(2, str(folder), "train")
    launch(2, str(folder), "take_up")
    launch(1, str(folder), "take_up")
    return folder


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("name", MODELS)
def test_small_micro_batches_are_not_lost_beside_a_large_one(
    half: Path, name: str, sharding: str
) -> None:
    found = load_file(half / f"{name}-{sharding}" / "sums.safetensors")
    firsts = {k.removeprefix("1."): v for k, v in found.items() if k.startswith("1.")}
    checked = 0
    for key, first in firsts.items():
        every = found[f"{len(SHARES)}.{key}"]
        if float(first.norm()) == 0.0:
            continue
        # ZeRO-1 rounds either sum itself once more, when it adds up the processes', by 2^-9 at
        # most: a gradient of few elements (a key's bias is rounding alone) shows all of it.
        ratio = float(every.norm() / first.norm())
        assert ratio == pytest.approx(sum(SHARES), rel=2**-8), (key, ratio)
        checked += 1
    assert checked > len(firsts) / 2


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("sharding", SHARDINGS[1:])
@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_goes_from_local_to_sharded_and_back_bit_for_bit(
    half: Path, name: str, sharding: str, processes: int
) -> None:
    for saved, taken in ((sharding, "local"), ("local", sharding)):
        place = half / f"{name}-{saved}"
        before = load_file(place / "saved.safetensors")
        after = load_file(place / f"{taken}-{processes}.safetensors")
        assert sum(key.startswith("master.") for key in before) > 10
        for key, value in before.items():
            if key.startswith("weight."):
                continue
            assert after[key].dtype == value.dtype, key
            # Here a master halfway between two weights has no room for its last bit.
            held = key.startswith("master.") and taken == "local"
            wanted = masters.join(*masters.split(value)) if held else value
            assert torch.equal(after[key], wanted), (saved, taken, key)
        for key, weight in after.items():
            if key.startswith("weight."):
                master = after[key.replace("weight.", "master.", 1)]
                assert torch.equal(master.to(weight.dtype), weight), (saved, taken, key)
