"""Any other image-text model: nothing is known of it, so nothing is shared.

Every response is trained and sampled with its own copy of prompt and pictures, through the
model's own forward. It works where the processor expands each picture by itself.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmrl.errors import UserError
from mmrl.policy.families import composed
from mmrl.policy.families.composed import Composed, Encoded, Intake
from mmrl.policy.family import Declaration, Family, Limits

DECLARATION = Declaration(
    model_types=(),
    takes=("image", "screenshot"),
    space="unit",
    towers=(),
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
    return Composed(
        model,
        processor,
        limits,
        DECLARATION,
        intakes={"image": picture, "screenshot": picture},
        placeholder_ids=placeholder_ids,
        banned_ids=placeholder_ids,
    )


def _no_tower(media: Encoded) -> list[Tensor]:
    raise AssertionError("the generic family's towers are run by the model itself")
