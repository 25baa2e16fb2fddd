"""lmms-eval's chat messages, answered with mmrl's own encoder and engine."""

from __future__ import annotations

import io
import json
import logging
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lmms_eval.api.model import lmms
from PIL import Image

from mmrl.errors import MediaError
from mmrl.types import MediaRef, Part, Sample, Text

if TYPE_CHECKING:
    from mmrl.engines.engine import Sampling

MAX_NEW_TOKENS = 128  # where a benchmark does not say
TASK = "lmms_eval"
log = logging.getLogger("mmrl")


class Checkpoint(lmms):  # type: ignore[misc]
    """A model folder, checkpoint or adapter that lmms-eval asks.

    `--model_args pretrained=DIR,engine=hf,dtype=bfloat16,...`: other arguments are those of the
    configuration's `model` section. A request whose media cannot be read gets an empty answer, is
    logged and counted in `unreadable`, since lmms-eval has no place for a record without one.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        engine: str = "hf",
        batch_size: int | str = 16,
        seed: int = 0,
        device: str | None = None,
        max_batch_size: int | None = None,
        **model: Any,
    ) -> None:
        super().__init__()
        import torch

        from mmrl.model_config import ModelConfig
        from mmrl.policy.encoder import Encoder
        from mmrl.policy.policy import load_policy
        from mmrl.rollout.build import build_engine
        from mmrl.rollout_config import RolloutConfig
        from mmrl.validation import validate

        config = validate(ModelConfig, {"path": pretrained, **model}, "model_args")
        rollout = validate(RolloutConfig, {"engine": engine}, "model_args")
        policy = load_policy(config, torch.device(device) if device else None)
        self._encoder = Encoder(policy.family, overflow=config.overflow)
        self._engine = build_engine(policy, config, rollout, {})
        self._batch_size, self._seed = int(batch_size), int(seed)
        self.device = policy.device
        self.unreadable = 0

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer every request, in order; those that are sampled alike are answered together."""
        answers = [""] * len(requests)
        for indices, options in _alike([request.args[2] for request in requests]):
            for start in range(0, len(indices), self._batch_size):
                part = indices[start : start + self._batch_size]
                samples = [self._sample(str(i), requests[i].args) for i in part]
                self._answer(part, samples, options, answers)
        if self.unreadable:
            log.warning("%d of %d requests had unusable media", self.unreadable, len(requests))
        return answers

    def _answer(
        self,
        indices: Sequence[int],
        samples: Sequence[Sample],
        options: Mapping[str, Any],
        answers: list[str],
    ) -> None:
        prompts = []
        for encoded in self._encoder.encode([(sample,) for sample in samples]):
            if isinstance(encoded, MediaError):
                self.unreadable += 1
                log.warning("unusable media: %s", encoded)
            else:
                prompts += encoded
        if not prompts:
            return
        seed = self._seed + indices[0]
        drawn = self._engine.generate(prompts, [1] * len(prompts), sampling(options), seed)
        for prompt, (response,) in zip(prompts, drawn, strict=True):
            answers[int(prompt.sample.id)] = until(response.text, options.get("until"))

    def _sample(self, name: str, arguments: Sequence[Any]) -> Sample:
        _, doc_to_messages, _, doc_id, task, split = arguments
        return sample_of(name, doc_to_messages(self.task_dict[task][split][doc_id]))

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("mmrl answers benchmarks that generate; this one asks for scores")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("mmrl answers benchmarks of one round")


def sample_of(name: str, messages: Sequence[Mapping[str, Any]]) -> Sample:
    """The messages of one user turn (and a system text) as a sample without a gold."""
    parts: list[Part] = []
    system = None
    for message in messages:
        match message["role"]:
            case "system":
                system = "".join(piece.get("text", "") for piece in message["content"])
            case "user":
                parts += [_part(piece) for piece in message["content"]]
            case other:
                raise NotImplementedError(f"mmrl answers one user turn, not one of '{other}'")
    return Sample(name, TASK, tuple(parts), None, system=system)


def _part(piece: Mapping[str, Any]) -> Part:
    kind = piece["type"]
    if kind == "text":
        return Text(piece["text"])
    clip = {"start": piece.get("start_time"), "end": piece.get("end_time")}
    options = {name: value for name, value in clip.items() if value is not None}
    return MediaRef(kind, _source(piece["url"]), options)


def _source(value: Any) -> Path | bytes:
    """A file, or the encoded bytes of a picture or a sound that lmms-eval holds in memory."""
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.convert("RGB").save(buffer, "PNG")
        return buffer.getvalue()
    if isinstance(value, dict) and "array" in value:
        return _wav(np.asarray(value["array"]), int(value["sampling_rate"]))
    if isinstance(value, bytes):
        return value
    return Path(str(value))


def _wav(samples: np.ndarray[Any, Any], rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def sampling(options: Mapping[str, Any]) -> Sampling:
    """A benchmark's generation options; without a temperature, or without sampling, greedy."""
    from mmrl.engines.engine import Sampling

    temperature = float(options.get("temperature") or 0.0)
    if options.get("do_sample") is False:
        temperature = 0.0
    return Sampling(
        max_new_tokens=int(options.get("max_new_tokens") or MAX_NEW_TOKENS),
        temperature=temperature,
        top_p=float(options.get("top_p") or 1.0),
        top_k=int(options.get("top_k") or 0),
    )


def until(text: str, stops: str | Sequence[str] | None) -> str:
    """The text before the first of these strings."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        if stop:
            text = text.partition(stop)[0]
    return text


def _alike(options: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], Mapping[str, Any]]]:
    """Indices of equal options together, in order of first appearance."""
    found: dict[str, tuple[list[int], Mapping[str, Any]]] = {}
    for index, each in enumerate(options):
        key = json.dumps(each, sort_keys=True, default=str)
        found.setdefault(key, ([], each))[0].append(index)
    return list(found.values())
