"""Questions of every shape a family takes, and the plain path that shared rows must equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers import PreTrainedConfig

from mmrl import plugins
from mmrl.frame import Frame
from mmrl.policy.attention import active_layout
from mmrl.policy.families import chat, composed
from mmrl.policy.family import Limits
from mmrl.policy.policy import Policy, wrap
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.types import Media, MediaKind, MediaRef, Prompt, Sample, Text
from tests.families import tiny

RATE = 16_000


def picture(seed: int, width: int = 112, height: int = 84) -> Media:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return medium("image", pixels, Frame(source_size=(width, height)))


def clip(seed: int, frames: int = 4, sound: bool = False) -> Media:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (frames, 56, 84, 3), dtype=np.uint8)
    indices = tuple(range(0, 10 * frames, 10))
    frame = Frame(
        source_size=(84, 56), seconds=tuple(i / 20 for i in indices), indices=indices, fps=20.0
    )
    track = tone(seed, frames / 2).array if sound else None
    return medium("video", pixels, frame, track)


def tone(seed: int, seconds: float = 1.0) -> Media:
    times = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(times))
    samples = (0.3 * np.sin(2 * np.pi * 200 * (seed + 1) * times) + 0.1 * noise).astype(np.float32)
    return medium("audio", samples, Frame(seconds=(0.0, seconds)))


def medium(kind: MediaKind, array: Any, frame: Frame, track: Any = None) -> Media:
    digest = hashlib.sha256(array.tobytes() + (b"" if track is None else track.tobytes()))
    heard = kind == "audio" or track is not None
    return Media(kind, array, frame, digest.hexdigest(), track, RATE if heard else 0)


def make(kind: str, seed: int) -> Media:
    """One medium of a kind; a sounding clip has a track of its own."""
    if kind == "image":
        return picture(seed, 112 + 28 * (seed % 2), 84)
    if kind == "audio":
        return tone(seed, 0.8 + 0.3 * (seed % 3))
    return clip(seed, 4 + 2 * (seed % 2), sound=kind == "sounding clip")


@dataclass(frozen=True)
class Case:
    """What is asked: text and media, in order."""

    parts: tuple[str | Media, ...]

    @property
    def media(self) -> list[Media]:
        return [part for part in self.parts if isinstance(part, Media)]

    @property
    def sample(self) -> Sample:
        made = [Text(p) if isinstance(p, str) else MediaRef(p.kind, b"") for p in self.parts]
        return Sample("s", "test", tuple(made), gold=None)


def cases(kinds: Sequence[str]) -> dict[str, Case]:
    """Text alone, one medium of each kind, two of one kind, and all kinds together."""
    found = {"text": Case(("Nothing to see here.",))}
    for i, kind in enumerate(kinds):
        found[kind] = Case((make(kind, i), f"What is this {kind}?"))
    first = kinds[0]
    found[f"two {first}"] = Case(
        ("Compare", make(first, 10), "and", make(first, 11), "please, which is larger?")
    )
    # A clip with its sound and one without do not mix in one prompt of the library.
    together = [kind for kind in kinds if kind != "sounding clip"]
    if len(together) > 1:
        media = [make(kind, 20 + i) for i, kind in enumerate(together)]
        found["mixed"] = Case(("Here:", *media, "Say it all, in the order you were given it."))
    if "sounding clip" in kinds:
        found["clip and image"] = Case(
            (make("image", 30), "and", make("sounding clip", 31), "fit?")
        )
    return found


def policy(name: str, **limits: Any) -> Policy:
    """A fresh tiny policy of the table's model."""
    model, processor = tiny.build(name)
    module = plugins.load("family", tiny.TINY[name].family)
    family = module.build(model, processor, Limits(max_prompt_tokens=2000, **limits))
    return wrap(model, processor, family)


def ask(made: Policy, case: Case) -> Prompt:
    family = made.family
    return family.encode(case.sample, [family.encode_medium(m) for m in case.media])


def responses(seed: int, lengths: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Response ids of given lengths from the ordinary vocabulary."""
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(60, 300, length) for length in lengths)


def shared(made: Policy, rows: Sequence[SharedRow]) -> Tensor:
    layout = lay_out(rows, made.device)
    with active_layout(layout):
        return made.logprobs(layout, [row.prompt for row in rows], temperature=1.0)[0]


def processed(made: Policy, case: Case) -> dict[str, Any]:
    """What the library's own processor makes of the whole conversation at once."""
    text = made.processor.apply_chat_template(
        chat.messages(case.sample, []), tokenize=False, add_generation_prompt=True
    )
    arguments: dict[str, Any] = {"text": [text], "add_special_tokens": False}
    intake = made.family.intakes  # type: ignore[attr-defined]
    pictures, clips, sounds = [], [], []
    for part in case.media:
        if part.kind == "image":
            pictures.append(Image.fromarray(part.array))
        elif part.kind == "video":
            clips.append(part)
            sounds += [] if part.track is None else [part.track]
        else:
            sounds.append(part.array)
    if pictures:
        nested = type(made.processor).__name__ in ("LlavaOnevisionProcessor", "Gemma4Processor")
        arguments["images"] = [pictures] if nested else pictures
        given = intake["image"].arguments(picture(0)) if intake else {}
        arguments |= {k: v for k, v in given.items() if k == "images_kwargs"}
    if clips:
        each = [(intake["video"].arguments if intake else composed.videos)(c) for c in clips]
        settings = dict(each[0]["videos_kwargs"])
        told = [e["videos_kwargs"]["video_metadata"] for e in each]
        settings["video_metadata"] = [t[0] for t in told] if isinstance(told[0], list) else told[0]
        arrays: list[Any] = [c.array for c in clips]
        nested = type(made.processor).__name__ == "SmolVLMProcessor"
        arguments |= {"videos": [arrays] if nested else arrays, "videos_kwargs": settings}
        told = ("load_audio_from_video", "audio_from_video_indices")
        arguments |= {key: each[0][key] for key in told if key in each[0]}
    if sounds:
        arguments |= {"audio": sounds, "sampling_rate": RATE}
    return dict(made.processor(return_tensors="pt", **arguments))


PER_TOKEN = ("mm_token_type_ids", "token_type_ids")


def plain(model: Any, inputs: dict[str, Any], prompt: Prompt, answers: Any, banned: Any) -> Tensor:
    """The reference: one right-padded batch with a copy of prompt and media for every response."""
    count, start = len(answers), inputs["input_ids"].shape[1]
    length = start + max(map(len, answers))
    ids = torch.zeros(count, length, dtype=torch.long)
    mask = torch.zeros(count, length, dtype=torch.long)
    for i, answer in enumerate(answers):
        ids[i, :start] = inputs["input_ids"][0]
        ids[i, start : start + len(answer)] = torch.from_numpy(answer)
        mask[i, : start + len(answer)] = 1
    more = {
        key: torch.cat([value] * count)
        for key, value in inputs.items()
        if key not in ("input_ids", "attention_mask", *PER_TOKEN)
    }
    for key in PER_TOKEN:
        if key in inputs:
            kinds = torch.zeros(count, length, dtype=torch.long)
            kinds[:, :start] = inputs[key]
            more[key] = kinds
    if any(m.kind == "video" for m in prompt.media):
        more |= video_work_around(model, more, prompt, length)
    one_token = model.config.model_type in ("glm4v", "glmga", "nemotron_h_omni", "smolvlm")
    if one_token and len({m.kind for m in prompt.media}) > 1:
        more = {**one_token_for_both(model, prompt, ids, mask), "attention_mask": mask}
    else:
        more |= {"input_ids": ids, "attention_mask": mask}
    logits = model(use_cache=False, **more).logits.float()
    logits = logits.index_fill(-1, banned, float("-inf"))
    pieces = [
        logits[i, start - 1 : start - 1 + len(a)].log_softmax(-1)[range(len(a)), a]
        for i, a in enumerate(answers)
    ]
    return torch.cat(pieces)


def video_work_around(
    model: Any, inputs: dict[str, Any], prompt: Prompt, length: int
) -> dict[str, Any]:
    """What the library's forward gets wrong by itself where there is a video."""
    kind = model.config.model_type
    if kind in ("qwen2_vl", "qwen2_5_vl"):  # text goes on before the video has ended
        after = prompt.next_position + np.arange(length - len(prompt.ids))
        positions = np.concatenate([prompt.positions, np.tile(after, (3, 1))], axis=1)
        count = len(inputs["mm_token_type_ids"])
        return {"position_ids": torch.from_numpy(positions)[:, None].expand(-1, count, -1)}
    if kind == "gemma4":  # frame counts are lost on the way to the tower
        taken = ("pixel_values_videos", "video_position_ids", "num_frames_per_video")
        video = model.model.get_video_features(*(inputs.pop(k) for k in taken), return_dict=True)
        outputs = {"video": video}
        if "pixel_values" in inputs:
            given = inputs.pop("pixel_values"), inputs.pop("image_position_ids")
            outputs["image"] = model.model.get_image_features(*given, return_dict=True)
        return {"mm_encoder_outputs": outputs}
    if kind == "nemotron_h_omni":  # its forward wants a list of what its tower gives as a tensor
        video = model.get_video_features(inputs.pop("pixel_values_videos"), return_dict=True)
        video.pooler_output = list(video.pooler_output)
        return {"mm_encoder_outputs": {"video": video}}
    if any("feature_attention_mask" in m.tensors for m in prompt.media if m.kind == "video"):
        return {"use_audio_in_video": True}
    return {}


def one_token_for_both(model: Any, prompt: Prompt, ids: Tensor, mask: Tensor) -> Any:
    """A picture and a clip in one prompt, where both have the same placeholder, and a sound.

    The library's forward takes only one kind there, so features are put in place by hand.
    """
    owner, rows = getattr(model, "model", model), []
    for one in prompt.media:
        if "pixel_attention_mask" in one.tensors:
            given = one.tensors["pixel_values"], one.tensors["pixel_attention_mask"]
            out = owner.get_image_features(*given, return_dict=True)
        elif "image_grid_hw" in one.tensors:
            given = one.tensors["pixel_values"], one.tensors["image_grid_hw"]
            out = owner.get_image_features(*given, return_dict=True)
        elif one.kind == "audio":
            heard = one.tensors["input_features"], one.tensors["input_features_mask"]
            rows.append(owner.get_audio_features(*heard, return_dict=True).pooler_output)
            continue
        elif "pixel_values_videos" in one.tensors and "video_grid_thw" not in one.tensors:
            out = owner.get_video_features(one.tensors["pixel_values_videos"], return_dict=True)
        else:
            name = one.kind
            pixels = "pixel_values" if name == "image" else "pixel_values_videos"
            given = one.tensors[pixels], one.tensors[f"{name}_grid_thw"]
            out = getattr(owner, f"get_{name}_features")(*given, return_dict=True)
        rows += out.pooler_output
    tokens = [model.config.image_token_id, getattr(model.config, "audio_token_id", None)]
    places = torch.isin(ids, torch.tensor([t for t in tokens if t is not None]))[..., None]
    embeds = model.get_input_embeddings()(ids).masked_scatter(places, torch.cat(rows * len(ids)))
    after = prompt.next_position + np.arange(ids.shape[1] - len(prompt.ids))
    axes = len(prompt.positions)
    positions = np.concatenate([prompt.positions, np.tile(after, (axes, 1))], axis=1)
    found = torch.from_numpy(positions)[:, None].expand(-1, len(ids), -1)
    return {"inputs_embeds": embeds, "position_ids": found if axes > 1 else found[0]}


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


TOLERANCE = 1e-5  # relative, float32
# Gemma 4's first convolutions add up a gradient over every bin of every sound: either path's is
# 5e-5 from the float64 one, and they were seen to differ by 1.7e-5. In float64 they are equal.
LONG_SUMS = {"subsample_conv_projection": 3e-5}
# How fast a recurrent layer forgets has gradients that are sums of large terms of either sign: of
# either path's, 2e-3 is rounding. In float64 they are equal.
LONG_SUMS |= {"A_log": 5e-3, "dt_bias": 5e-3, "in_proj_a": 1e-4}
# Gemma 4 does not scale its scores down, so a log-sum-exp has fewer digits after the point, and two
# of those join responses with their prompt; its full layers' wide heads have the largest. More
# than 3e-5 was seen. A state that was carried over hundreds of tokens has as few digits: 9e-6, of
# either path. In float64 they are equal.
LARGE_SCORES = {"gemma4": 2e-4, "gemma4_unified": 3e-5, "qwen3_5": 3e-5, "qwen3_5_moe": 3e-5}


def retyped(model: Any, dtype: torch.dtype) -> Any:
    """A model in another dtype that says so: some cast to what their configurations say."""
    for module in model.modules():
        if isinstance(getattr(module, "config", None), PreTrainedConfig):
            module.config.dtype = dtype
    return model.to(dtype)


class _Lifted(TorchFunctionMode):
    """Whatever asks for float32 gets float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        lifted = tree_map(
            lambda x: torch.float64 if x is torch.float32 else x, (args, kwargs or {})
        )
        return func(*lifted[0], **lifted[1])


@contextmanager
def lifted(dtype: torch.dtype) -> Iterator[None]:
    """Run forwards of models in float64 without the library's own casts to float32."""
    if dtype != torch.float64:
        yield
        return
    with pytest.MonkeyPatch.context() as patch, _Lifted():
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def all_gradients(model: torch.nn.Module, like: torch.nn.Module) -> torch.Tensor:
    """The gradients of those parameters that have one in `like`, as one vector."""
    known = {n for n, p in like.named_parameters() if p.grad is not None and p.grad.any()}
    return torch.cat(
        [p.grad.flatten() for n, p in model.named_parameters() if n in known and p.grad is not None]
    )


def compare_gradients(found: torch.nn.Module, wanted: torch.nn.Module) -> None:
    """Every parameter's gradient equals the reference's, relative to its own size.

    Where a gradient is nothing but rounding (a key's bias has none), to that of the whole.
    """
    expected = dict(wanted.named_parameters())
    known = [p.grad.norm() for p in expected.values() if p.grad is not None]
    floor = 1e-7 * float(torch.stack(known).norm())
    for name, parameter in found.named_parameters():
        grad = expected[name].grad
        if grad is None or parameter.grad is None:
            either = grad if parameter.grad is None else parameter.grad
            assert either is None or not either.any(), name
            continue
        error = float((parameter.grad - grad).norm())
        usual = LARGE_SCORES.get(found.config.model_type, TOLERANCE)
        relative = max([usual, *(t for part, t in LONG_SUMS.items() if part in name)])
        assert error < max(relative * float(grad.norm()), floor), name
