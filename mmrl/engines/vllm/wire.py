"""What a trainer and its vLLM servers say to each other: one request a prompt, over HTTP.

A request is a safetensors file, media as tensors and the rest as JSON in its header; what comes
back is JSON. Neither side runs anything that it reads.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from mmrl.engines.engine import Sampling
from mmrl.engines.vllm.media import PlacedMedium, Positions
from mmrl.engines.vllm.thinker import thinker_of
from mmrl.types import Floats, Ints

GENERATE = "/mmrl/generate"
WEIGHTS = "/mmrl/weights"
STATE = "/mmrl/state"

REFUSED = 400  # no server will take it
STALE = 409  # this one has other weights
LACKING = 412  # it does not have the media that came by their hash


class Lacking(LookupError):
    """Media that came by their hash alone are not there."""


@dataclass(frozen=True)
class Ask:
    """`count` responses to a prompt, by the weights of that version and no other.

    Versions are labels that no other run uses. `adapter`: the weights are a base and an adapter.
    `positions` [3, L] are the prompt's rope positions, where vLLM is not to count them itself.
    """

    sample: str
    ids: tuple[int, ...]
    media: tuple[PlacedMedium, ...]
    sampling: Sampling
    count: int
    seed: int
    banned: tuple[int, ...]
    end_ids: tuple[int, ...]
    version: str
    adapter: bool = False
    positions: Positions | None = None


@dataclass(frozen=True)
class Drawn:
    """A sampled response: token ids [T] and their log-probs [T]."""

    ids: Ints
    logprobs: Floats


def pack(ask: Ask, known: Collection[str] = ()) -> bytes:
    """A request's body; a medium that occurs twice is in it once, one that is `known` as its hash.

    Tensors of known media are not looked at.
    """
    tensors = {
        f"{medium.hash}/{name}": tensor.detach().cpu().contiguous().clone()
        for medium in {m.hash: m for m in ask.media if m.hash not in known}.values()
        for name, tensor in medium.tensors.items()
    }
    places = [
        {
            "modality": m.modality,
            "hash": m.hash,
            "first": m.first,
            "length": m.length,
            "embedded": None if m.embedded is None else np.flatnonzero(m.embedded).tolist(),
        }
        for m in ask.media
    ]
    sampling = asdict(replace(ask.sampling, still=None))
    plain = {**vars(ask), "media": places, "sampling": sampling}
    return save(tensors, {"ask": json.dumps(plain)})


def unpack(body: bytes, kept: Mapping[str, Mapping[str, Tensor]] | None = None) -> Ask:
    """Read a request's body; tensors [...] of media that came by hash are those that were `kept`.

    Raises Lacking where one is neither there nor in the body, ValueError or KeyError where that is
    no request.
    """
    plain = json.loads(_header(body)["__metadata__"]["ask"])
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load(body).items():
        owner, _, name = key.rpartition("/")
        tensors.setdefault(owner, {})[name] = tensor
    named, own = {place["hash"] for place in plain["media"]}, kept or {}
    if lacking := sorted(named - tensors.keys() - own.keys()):
        raise Lacking(f"{len(lacking)} media came by hash alone: {lacking[0]}")
    found = {**{name: own[name] for name in named - tensors.keys()}, **tensors}
    return Ask(
        **{
            **plain,
            "ids": tuple(plain["ids"]),
            "media": tuple(_placed(place, found) for place in plain["media"]),
            "sampling": Sampling(**plain["sampling"]),
            "banned": tuple(plain["banned"]),
            "end_ids": tuple(plain["end_ids"]),
            "positions": plain["positions"] and tuple(map(tuple, plain["positions"])),
        }
    )


def _header(body: bytes) -> Mapping[str, Any]:
    (size,) = struct.unpack("<Q", body[:8])
    header: dict[str, Any] = json.loads(body[8 : 8 + size])
    return header


def _placed(place: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> PlacedMedium:
    embedded = None
    if place["embedded"] is not None:
        embedded = np.zeros(place["length"], dtype=bool)
        embedded[place["embedded"]] = True
    return PlacedMedium(**{**place, "embedded": embedded, "tensors": tensors[place["hash"]]})


def pack_answer(version: str, drawn: list[Drawn]) -> dict[str, Any]:
    """An answer as JSON's values; log-probs keep every bit."""
    return {
        "version": version,
        "responses": [{"ids": d.ids.tolist(), "logprobs": d.logprobs.tolist()} for d in drawn],
    }


def unpack_answer(plain: Mapping[str, Any]) -> list[Drawn]:
    """The responses of an answer, in order."""
    return [
        Drawn(np.array(r["ids"], dtype=np.int64), np.array(r["logprobs"], dtype=np.float64))
        for r in plain["responses"]
    ]


def fingerprint(config: Any) -> dict[str, Any]:
    """What tells models of other kinds and sizes apart, of a transformers configuration."""
    config = thinker_of(config)
    text = config.get_text_config()
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    return {"model_type": config.model_type, **{name: getattr(text, name) for name in sizes}}
