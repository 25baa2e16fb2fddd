"""Any other image-text model: nothing is known of it, so nothing is shared.

Every response is trained and sampled with its own copy of prompt and pictures, through the
model's own forward. It works where the processor expands each picture by itself, which is tried
out on two pictures before anything is trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmrl.errors import UserError
from mmrl.frame import Frame
from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits
from mmrl.types import Media, MediaRef, Prompt, Sample, Text

DECLARATION = Declaration(
    model_types=(),
    takes=("image", "screenshot"),
    space="unit",
    towers=(),
    projectors=(),
    language=r"model.language_model.layers",
    shared_prefix=False,
    notes="any other AutoModelForImageTextToText, with a copy of the prompt for every response",
)


def build(model: Any, processor: Any, limits: Limits) -> Family:
    """Bind the family to a loaded model and its processor."""
    placeholder = getattr(processor, "image_token", None)
    if not isinstance(placeholder, str):
        raise UserError(
            f"the generic family needs a processor with an image_token, "
            f"{type(processor).__name__} has none"
        )
    placeholder_ids = composed.token_ids(processor, placeholder)
    picture = Intake(placeholder, composed.images, _no_tower)
    family = Generic(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture},
        placeholder_ids=placeholder_ids,
        banned_ids=placeholder_ids,
    )
    # Two pictures may be more than a run's own limit on prompts.
    family.told_of = family.unlimited().try_out()
    return family


class Generic(Composed):
    """A composed family whose model is told what its processor says of each token."""

    told_of: tuple[str, ...] = ()

    def token_inputs(self, ids: Tensor) -> Mapping[str, Tensor]:
        """Kinds of token [rows, L], under each name that processor and model use for them."""
        if not self.told_of:
            return {}
        kinds = torch.tensor(self.processor.create_mm_token_type_ids(ids.tolist()))
        return dict.fromkeys(self.told_of, kinds.to(ids.device))

    def trial(self) -> Prompt:
        """A picture and a few words: some models take no text by itself."""
        sample = Sample("s", "trial", (Text("A"), MediaRef("image", b"")), gold=None)
        return self.unlimited().encode(sample, [self.encode_medium(_picture(56, 56))])

    def try_out(self) -> tuple[str, ...]:
        """Names under which the model is told of its tokens.

        Raises UserError if a prompt of two pictures, put together from each by itself, is not
        what the processor makes of the whole.
        """
        pictures = [_picture(56, 56), _picture(84, 56)]
        parts = (Text("A"), MediaRef("image", b""), MediaRef("image", b""), Text("b"))
        sample = Sample("s", "generic", parts, gold=None)
        prompt = self.encode(sample, [self.encode_medium(p) for p in pictures])
        whole = self.processor(
            text=[self.chat_text(sample)],
            images=[[Image.fromarray(p.array) for p in pictures]],
            return_tensors="pt",
            add_special_tokens=False,
        )
        taken = inspect.signature(self.model.forward).parameters.keys() - {"attention_mask"}
        self.told_of = tuple(key for key in composed.TOKEN_KINDS if key in taken & whole.keys())
        ids = torch.from_numpy(prompt.ids)[None]
        ours = {"input_ids": [ids], **{k: [v] for k, v in self.token_inputs(ids).items()}}
        ours |= {key: [m.tensors[key] for m in prompt.placed] for key in prompt.placed[0].tensors}
        for key in sorted(taken & (whole.keys() | ours.keys())):
            if not _makes(ours.get(key, []), whole.get(key)):
                raise UserError(
                    f"the generic family does not serve {type(self.model).__name__}: '{key}' of "
                    "two pictures is not made of what the processor gives for each; the model "
                    "needs a family of its own (ARCHITECTURE.md)"
                )
        return self.told_of


def _makes(pieces: list[Tensor], whole: Any) -> bool:
    """Whether pieces, one after the other, are the whole."""
    fit = isinstance(whole, Tensor) and len({piece.shape[1:] for piece in pieces}) == 1
    return fit and torch.equal(torch.cat(pieces), whole)


def _picture(width: int, height: int) -> Media:
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    return Media("image", pixels, Frame(source_size=(width, height)), f"{width} x {height}")


def _no_tower(media: Encoded) -> list[Tensor]:
    raise AssertionError("the generic family's towers are run by the model itself")
