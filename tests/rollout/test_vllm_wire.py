"""What goes over the wire arrives as it was, bit for bit; servers start with what was meant."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling
from mmrl.engines.vllm import wire
from mmrl.engines.vllm.client.process import devices_of_servers, flags
from mmrl.engines.vllm.client.push import WeightFiles
from mmrl.engines.vllm.client.remote import weights_folder
from mmrl.engines.vllm.media import PlacedMedium
from mmrl.engines.vllm.server.kept_media import KeptMedia
from mmrl.errors import UserError
from mmrl.policy.policy import Policy
from mmrl.rollout_config import RolloutConfig, ServersConfig


def test_a_request_arrives_as_it_was() -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randn(6, 4, generator=rng).to(torch.bfloat16)
    dotted = np.array([True, False, True])
    media = (
        PlacedMedium("image", "image-a", 1, 4, None, {"pixel_values": pixels}),
        PlacedMedium("video", "video-b", 9, 3, dotted, {"grid": torch.tensor([[1, 2, 2]])}),
        PlacedMedium("image", "image-a", 20, 4, None, {"pixel_values": pixels}),
    )
    sampling = Sampling(7, temperature=0.3, top_p=0.9, top_k=5, greedy_too=True)
    places = ((0, 1, 1), (0, 1, 2), (0, 1, 1))
    ask = wire.Ask(
        "sämple", (5, 6, 7), media, sampling, 8, 2**61 + 1, (3, 4), (2,), "run-12", False, places
    )
    found = wire.unpack(wire.pack(ask))
    assert (found.sample, found.ids, found.sampling) == (ask.sample, ask.ids, ask.sampling)
    assert (found.count, found.seed, found.version) == (8, 2**61 + 1, "run-12")
    assert (found.banned, found.end_ids) == (ask.banned, ask.end_ids)
    assert found.positions == places
    for got, sent in zip(found.media, media, strict=True):
        assert (got.modality, got.hash, got.first, got.length) == (
            sent.modality,
            sent.hash,
            sent.first,
            sent.length,
        )
        assert np.array_equal(got.embedded, sent.embedded)
        assert got.tensors.keys() == sent.tensors.keys()
        for name, tensor in got.tensors.items():
            assert tensor.dtype == sent.tensors[name].dtype
            assert torch.equal(tensor, sent.tensors[name])


def test_a_medium_that_occurs_twice_is_sent_once() -> None:
    pixels = torch.zeros(1000)
    one = PlacedMedium("image", "image-a", 1, 4, None, {"pixel_values": pixels})
    again = PlacedMedium("image", "image-a", 9, 4, None, {"pixel_values": pixels})
    ask = wire.Ask("s", (1,), (one, again), Sampling(1), 1, 0, (), (), "0")
    assert len(wire.pack(ask)) < 1.5 * 4 * len(pixels)


def test_what_is_known_goes_by_its_hash() -> None:
    pixels = torch.arange(1000.0)
    media = [
        PlacedMedium("image", f"image-{name}", 1, 4, None, {"pixel_values": pixels + i})
        for i, name in enumerate("ab")
    ]
    ask = wire.Ask("s", (1,), tuple(media), Sampling(1), 1, 0, (), (), "0")
    body = wire.pack(ask, {"image-a"})
    assert len(body) < 1.5 * 4 * len(pixels)
    found = wire.unpack(body, {"image-a": {"pixel_values": pixels}})
    for got, sent in zip(found.media, media, strict=True):
        assert got.hash == sent.hash
        assert torch.equal(got.tensors["pixel_values"], sent.tensors["pixel_values"])
    with pytest.raises(wire.Lacking, match="image-a"):
        wire.unpack(body)


def test_servers_keep_the_media_last_asked_with() -> None:
    media = {
        name: PlacedMedium("image", name, 0, 1, None, {"pixel_values": torch.zeros(25)})
        for name in "abcd"
    }
    kept = KeptMedia(limit=300)
    kept.keep([media["a"], media["b"], media["c"]])
    kept.keep([media["a"], media["a"]])
    kept.keep([media["d"]])
    assert set(kept) == {"a", "c", "d"}
    kept.clear()
    kept.keep([media["b"]])
    assert set(kept) == {"b"}


def test_logprobs_keep_every_bit() -> None:
    values = np.array([-1 / 3, -1e-300, -np.inf, np.nan, -0.1 - 2**-52])
    sent = json.loads(json.dumps(wire.pack_answer("3", [wire.Drawn(np.arange(5), values)])))
    (found,) = wire.unpack_answer(sent)
    assert found.ids.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(found.logprobs, values, equal_nan=True)


def test_fingerprints_tell_models_apart(policy: Policy) -> None:
    found = wire.fingerprint(policy.model.config)
    assert found["model_type"] == "qwen2_5_vl"
    assert found["hidden_size"] == policy.model.config.text_config.hidden_size
    assert found["vocab_size"] == 512


def test_arguments_become_the_command_line_of_vllm_serve() -> None:
    arguments = {
        "max_num_seqs": 4,
        "model": "/models/a",
        "enforce_eager": True,
        "mm_device_do_normalize": False,
        "logits_processors": ["a:B", "c:D"],
        "limit_mm_per_prompt": {"image": 2},
        "enable_sleep_mode": None,
    }
    assert flags(arguments) == [
        "/models/a",
        *("--max-num-seqs", "4"),
        "--enforce-eager",
        "--no-mm-device-do-normalize",
        *("--logits-processors", "a:B", "c:D"),
        *("--limit-mm-per-prompt", '{"image": 2}'),
    ]


def test_servers_get_the_gpus_after_the_trainers() -> None:
    visible = ["4", "5", "6", "7", "8"]
    assert devices_of_servers(2, 2, visible, trainers=1) == ["5,6", "7,8"]
    with pytest.raises(UserError, match=r"start=2 .*needs 4 besides the trainer's 2, of 5"):
        devices_of_servers(2, 2, visible, trainers=2)


def test_servers_elsewhere_need_a_folder_they_see(tmp_path: Path) -> None:
    away = RolloutConfig(servers=ServersConfig(urls=("http://gpu7:8000",)))
    with pytest.raises(UserError, match=r"http://gpu7:8000 is another machine.*weights_folder"):
        weights_folder(away)
    shared = ServersConfig(urls=("http://gpu7:8000",), weights_folder=tmp_path)
    assert weights_folder(RolloutConfig(servers=shared)) == tmp_path
    here = RolloutConfig(servers=ServersConfig(urls=("http://127.0.0.1:8000",)))
    assert weights_folder(here) is None


def test_the_newest_weights_stay_and_older_ones_go(tmp_path: Path) -> None:
    weights = WeightFiles(tmp_path)
    files = []
    for version in range(3):
        push = weights.write(iter([{"a": torch.full((2,), float(version))}]), str(version))
        files.append(Path(push.told(0)["folder"]))
        weights.drop_old()
    assert [file.exists() for file in files] == [False, False, True]
    weights.close()
    assert not any(tmp_path.iterdir())


def test_weights_of_killed_runs_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    left = tmp_path / f"mmrl-weights-{host}-{ended.pid}-x1"
    alive = tmp_path / f"mmrl-weights-{host}-{os.getppid()}-x2"
    away = tmp_path / f"mmrl-weights-another{host}-{ended.pid}-x3"
    for folder in (left, alive, away):
        folder.mkdir()
    WeightFiles(tmp_path).close()
    assert (left.exists(), alive.exists(), away.exists()) == (False, True, True)
