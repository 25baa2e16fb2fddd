"""Weights that come a bucket at a time are those that come at once, under every family's names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmrl.policy import buckets
from mmrl.policy.buckets import named, plan, stored, weights_in_buckets, whole_bytes
from mmrl.policy.checkpoint_names import checkpoint_weights
from tests.families.cases import policy
from tests.families.tiny import TINY

every_family = pytest.mark.parametrize("name", sorted(TINY))


def files(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint's files."""
    return {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert [n for n, t in wanted.items() if t.dtype != found[n].dtype] == []
    assert [n for n, t in wanted.items() if not torch.equal(found[n], t)] == []


class Sharded:
    """Stands for a backend that shards: no parameter is there unless it was gathered."""

    def __init__(self, model: nn.Module) -> None:
        self._held = {id(p): p.data for p in model.parameters()}
        self._all = list(model.parameters())
        self.most = 0
        for parameter in self._all:
            parameter.ds_numel = parameter.numel()  # as DeepSpeed tells how large it is
            parameter.data = parameter.data[:0]

    @contextmanager
    def gather(
        self, parameters: Sequence[nn.Parameter], *, written: bool = False
    ) -> Iterator[None]:
        for p in parameters:
            p.data = self._held[id(p)].clone()
        self.most = max(self.most, sum(p.numel() * p.element_size() for p in self._all))
        yield
        for p in parameters:
            if written:
                self._held[id(p)].copy_(p.data)
            # What was kept of it is no weight any more.
            p.data.fill_(float("nan")) if p.is_floating_point() else p.data.zero_()
            p.data = p.data[:0]


@every_family
def test_a_folder_written_in_buckets_is_the_one_written_whole(name: str, tmp_path: Path) -> None:
    made = policy(name)
    made.save(tmp_path / "whole")
    total = sum(whole_bytes(p) for p in stored(made.model).values())
    planned = plan(stored(made.model))
    largest = max(sum(whole_bytes(stored(made.model)[n]) for n in names) for names in planned)
    backend = Sharded(made.model)
    sharded = replace(made, gather=backend.gather)
    sharded.save(tmp_path / "other", writes=False)
    assert not (tmp_path / "other").exists()
    sharded.save(tmp_path / "buckets")
    assert_same(files(tmp_path / "buckets"), files(tmp_path / "whole"))
    assert backend.most <= largest < total / 2
    for file in (tmp_path / "whole").glob("*.json"):
        assert (tmp_path / "buckets" / file.name).read_bytes() == file.read_bytes()
    again: Any = type(made.model).from_pretrained(tmp_path / "buckets")
    wanted: Any = type(made.model).from_pretrained(tmp_path / "whole")
    assert_same(again.state_dict(), wanted.state_dict())


@every_family
def test_a_checkpoint_is_taken_up_in_buckets(name: str, tmp_path: Path) -> None:
    made = policy(name)
    made.save(tmp_path)
    wanted = {n: t.clone() for n, t in made.model.state_dict().items()}
    with torch.no_grad():
        for tensor in stored(made.model).values():
            tensor.add_(1)
    backend = Sharded(made.model)
    replace(made, gather=backend.gather).load_weights(tmp_path)
    total = sum(t.numel() * t.element_size() for t in wanted.values())
    assert backend.most < total / 2
    found = weights_in_buckets(made.model, backend.gather)
    assert_same({n: t.clone() for n, t in named(found)}, wanted)


@every_family
def test_a_bucket_at_a_time_has_a_checkpoints_names(name: str, tmp_path: Path) -> None:
    made = policy(name)
    made.model.save_pretrained(tmp_path)
    written = {n.replace(".model.model.", ".model."): t for n, t in files(tmp_path).items()}
    found = checkpoint_weights(made.model, weights_in_buckets(made.model, None))
    assert_same(dict(named(found)), written)


def test_a_bucket_is_a_sixteenth_or_a_layer_and_what_is_tied_is_in_one() -> None:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, width), nn.Linear(width, 4)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.layers = nn.ModuleList([Block(4) for _ in range(63)] + [Block(100)])
            self.head = nn.Linear(4, 10)
            self.head.weight = self.embed.weight
            self.register_buffer("table", torch.zeros(1000), persistent=False)

    model = Model()
    found = plan(stored(model))
    assert sorted(n for names in found for n in names) == sorted(model.state_dict())
    (tied,) = (names for names in found if "embed.weight" in names)
    assert "head.weight" in tied
    # 63 layers of 40, one of 904, an embedding of 40, which is the head's, and a bias of 10.
    total = 4 * (63 * 40 + 904 + 50)
    for names in found:
        layers = {n.split(".")[1] for n in names if n.startswith("layers")}
        size = sum(whole_bytes(p) for p in {stored(model)[n] for n in names})
        assert size <= total / buckets.SHARE or layers == {"63"}
        for layer in layers:
            assert sum(n.startswith(f"layers.{layer}.") for n in names) == 4
    assert len(found) <= 2 * buckets.SHARE
