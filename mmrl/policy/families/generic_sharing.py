"""May rows of a model that no family knows share their prompt? By rule first, then by trying.

A short trial cannot see what only long prompts show (a layer that picks the best of its keys, a
chunk, a temperature that grows with the place), so what is not known to depend on queries, keys,
positions and a window alone is left out by its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmrl.errors import UserError
from mmrl.policy import recurrent_layers
from mmrl.policy.families import composed, generic_mended, generic_noise, generic_tokens
from mmrl.policy.families.generic_probe import DECODED, Probe, Shape, in_float32
from mmrl.types import Ints, Prompt

if TYPE_CHECKING:
    from mmrl.policy.families.generic import Generic

ATTENTION = {"full_attention", "sliding_attention", "attention"}
STATELESS = {"mlp", "moe"}
"""Layers without attention: a token goes through them by itself."""
RECURRENT = {"linear_attention", "conv", "mamba", "mamba2", "recurrent", "hybrid"}
"""Layers that remember; a hybrid one attends, too."""
BEYOND = {
    "attention_chunk_size": "chunks of the row",
    "attn_temperature_tuning": "a temperature by the place in the row",
    "index_topk": "the best of the keys",
    "index_block_size": "the best blocks of keys",
}
"""Settings that tell of attention by more than queries, keys, positions and a window."""
BY_LENGTH = {"dynamic", "longrope"}
"""Rotary positions that turn slower where a row is long."""


@dataclass(frozen=True)
class Form:
    """Which tokens of a prompt see each other both ways.

    `blocks` names them: runs of tokens of what is "seen" (pictures, clips) or of any "media", runs
    that the model is told of by "kinds", the whole "prompt", or none. `slide_only`: in layers with
    a sliding window.
    """

    blocks: str = ""
    slide_only: bool = False

    def numbers(self, family: Generic, ids: Ints) -> Ints | None:
        """Number [L] the runs of a prompt's tokens from 1, 0 is causal; None without any."""
        members = {"seen": family.seen_ids, "media": family.placeholder_ids}.get(self.blocks)
        if members is not None:
            return composed.runs(ids, members)
        if self.blocks == "kinds":
            return composed.runs(ids, sorted({i for k in family.kinds.values() for i in k}))
        return np.ones(len(ids), dtype=np.int64) if self.blocks == "prompt" else None

    def on(self, family: Generic, prompt: Prompt) -> Prompt:
        """The prompt with its tokens seeing each other so."""
        numbers = self.numbers(family, prompt.ids)
        return dataclasses.replace(prompt, blocks=numbers, blocks_slide_only=self.slide_only)


CAUSAL = Form()
FORMS = (
    CAUSAL,
    *(Form(name, slide) for name in ("seen", "media", "kinds") for slide in (False, True)),
    Form("prompt"),
)


@dataclass(frozen=True)
class Finding:
    """Why prompts are not shared, "" if they are, and in which form; what else was found."""

    reason: str
    form: Form = CAUSAL
    not_taken: tuple[tuple[Shape, str], ...] = ()
    one_by_one: bool = False
    answers_are: int = 0
    noisy: bool = False


KEPT = "_generic_finding"
"""The attribute of a model that its finding is kept in: copies of it are not tried again."""


def settle(family: Generic) -> None:
    """Let a family share prompts where that is safe, and note the reason where it is not.

    Raises UserError where copies of the prompt do not work either.
    """
    model = family.model
    generic_mended.mend(model)
    quantised = getattr(model, "is_quantized", False)
    if quantised or model.device.type == "meta":  # nothing can be tried in float32
        family.take(Finding(objection(model)), "if a check agrees when it is loaded")
        return
    if not hasattr(model, KEPT):
        try:
            with in_float32(model):
                setattr(model, KEPT, _tried(family))
        except torch.OutOfMemoryError:
            setattr(model, KEPT, Finding("there is no memory to try it in float32"))
    family.take(getattr(model, KEPT), "as a check found when it was loaded")


def _tried(family: Generic) -> Finding:
    refused = f"the generic family does not serve {type(family.model).__name__}"
    reason, form = objection(family.model), CAUSAL
    probe = Probe(family)
    noisy = probe.forwards_differ()
    if noisy:
        generic_noise.hold_still(family.model)
        reason = reason or "its forward draws noise"
    gap = probe.decoding_gap()
    if gap > DECODED and "token_type_ids" in family.kinds:  # told which tokens are answers
        family.answers_are = 1
        gap = probe.decoding_gap()
    if gap > DECODED:
        raise UserError(
            f"{refused}: what it decodes is not what its forward says ({gap:.2f} nats), so what is "
            "sampled cannot be trained"
        )
    probe.run_copies()
    if not reason and family.places:
        reason = f"its forward is told of every place in a prompt ({', '.join(family.places)})"
    if not reason and family.unmarked:
        reason = f"no token stands for {' or '.join(family.unmarked)}"
    if not reason:
        reason, form = probe.difference(FORMS)
        reason = reason or probe.step_fails()
    alone = probe.one_by_one or noisy
    return Finding(reason, form, tuple(probe.not_taken.items()), alone, family.answers_are, noisy)


def objection(model: Any) -> str:
    """Why a model's rows cannot share a prompt, by its configuration; "" where they may."""
    text = model.config.get_text_config()
    listed = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    kinds = set(listed) - ATTENTION - STATELESS
    if generic_tokens.reading(model).start is not None:
        return "an encoder in front of its decoder"
    if _set(text, "cross_attention_layers"):
        return "pictures enter it by cross-attention"
    if getattr(model, "is_quantized", False):
        return "weights in a few bits cannot be tried in float32"
    recurrent = sum(kind in RECURRENT for kind in listed)
    if kinds - RECURRENT:
        return f"layers of a kind that is not known ({', '.join(sorted(kinds - RECURRENT))})"
    if recurrent > recurrent_layers.known(model):
        return f"recurrent layers ({', '.join(sorted(kinds & RECURRENT))})"
    beyond = (f"{key}: attention by {what}" for key, what in BEYOND.items() if _set(text, key))
    scaled = sorted(_rope_types(getattr(text, "rope_parameters", None)) & BY_LENGTH)
    return next(beyond, f"{scaled[0]}: positions by the length of the row" if scaled else "")


def _rope_types(settings: Any) -> set[str]:
    """The kinds of rotary positions of a configuration, whether of all layers or of each type."""
    if not isinstance(settings, Mapping):
        return set()
    own = {str(settings["rope_type"])} if "rope_type" in settings else set()
    return own.union(*(_rope_types(value) for value in settings.values()))


def expected(model: Any) -> str:
    """In words, what is to be expected of a model that cannot be tried."""
    return told(objection(model), "if a check agrees when it is loaded")


def told(reason: str, checked: str) -> str:
    """In words, whether and why prompts are shared."""
    if reason:
        return f"every response has its own copy of the prompt, for this reason: {reason}"
    return f"prompts are shared, {checked}"


def _set(text: Any, key: str) -> bool:
    return bool(getattr(text, key, None))
