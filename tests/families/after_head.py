"""What models do to the output of their LM head: of every kind, on any tiny model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

from mmrl.policy.head import lm_head
from tests.families import tiny

CAP = 4.0
CUT = 30  # ids, the last: a vocabulary padded for the hardware


def in_place(logits: Tensor) -> Tensor:
    """Masked ids and a scale, written into the logits themselves."""
    logits[:, :, -CUT:] = torch.finfo(logits.dtype).min
    logits[..., :-CUT].mul_(0.25)
    return logits


def divided(logits: Tensor) -> Tensor:
    """A division that changes logits without a name of its own."""
    logits /= 8.0
    return logits


CHANGES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "nothing": lambda model, logits: logits,
    "cap": lambda model, logits: torch.tanh(logits / CAP) * CAP,
    "scale": lambda model, logits: divided(logits),
    "cut": lambda model, logits: logits[..., :-CUT],
    "in place": lambda model, logits: in_place(logits),
    "bias": lambda model, logits: logits + model.after_bias,
    "learned scale": lambda model, logits: logits * model.after_scale.exp(),
    "cast": lambda model, logits: logits.float().mul(0.5),
    "pieces": lambda model, logits: torch.cat(
        [half.tanh() for half in logits.chunk(2, dim=-1)], dim=-1
    ),
}


def learn_after_head(model: Any) -> Any:
    """Give the model a bias and a scale that only some of the changes use; returns it."""
    generator = torch.Generator().manual_seed(5)
    bias = torch.randn(lm_head(model).weight.shape[0], generator=generator)
    model.register_parameter("after_bias", nn.Parameter(bias))
    model.register_parameter("after_scale", nn.Parameter(torch.tensor(-0.7)))
    return model


def change_logits(model: Any, change: Callable[[Any, Tensor], Tensor]) -> Any:
    """Make the model's own forward do `change` to what comes out of its head; returns it."""
    kind = type(model)

    @functools.wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = kind.forward(self, *args, **kwargs)
        out.logits = change(self, out.logits)
        return out

    model.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return model


def gemma4() -> tuple[Any, Any]:
    """The family's model with the cap that released configurations set."""
    model, processor = tiny.build("gemma4")
    model.config.get_text_config().final_logit_softcapping = 30.0
    return larger(model), processor


def muse_glimmer() -> tuple[Any, Any]:
    """A multiplier, then a cap."""
    tokens = tiny.tokenizer(
        {
            "image_token": "<|patch|>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "video_token": "<|video|>",
            "video_sep_token": "<|vid_frame_separator|>",
            "video_start_token": "<|vid_start|>",
            "video_end_token": "<|vid_end|>",
            "audio_token": "<|audio|>",
            "audio_start_token": "<|soft_audio_start|>",
            "audio_end_token": "<|soft_audio_end|>",
        }
    )
    processor = tf.MuseGlimmerProcessor(
        image_processor=tf.MuseGlimmerImageProcessor(patch_size=14, max_image_tokens=16),
        video_processor=tf.MuseGlimmerVideoProcessor(patch_size=14),
        tokenizer=tokens,
        chat_template=tiny.chat(image="<|patch|>"),
    )
    config = tf.MuseGlimmerConfig(
        text_config=tiny.text_config(
            tokens,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            sliding_window=24,
            layer_rope_theta=[1e4, 0, 1e4],
            output_multiplier=0.5,
            final_logit_softcapping=6.0,
        ),
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "layer_types": ["window_attention", "full_attention"],
            "max_position_embeddings": 64,
        },
        image_token_id=tokens.image_token_id,
        video_token_id=tokens.video_token_id,
        out_hidden_size=256,
        projector_hidden_size=64,
    )
    return seeded(tf.MuseGlimmerForConditionalGeneration, config), processor


def hyperclovax() -> tuple[Any, Any]:
    """Logits multiplied by a configured scale (Granite divides by one)."""
    tokens = tiny.tokenizer(tiny.QWEN)
    processor = tf.HyperCLOVAXVisionV2Processor(
        image_processor=tf.Qwen2VLImageProcessor(size=tiny.pixels(14), patch_size=14),
        video_processor=tf.Qwen2VLVideoProcessor(size=tiny.pixels(14), patch_size=14),
        tokenizer=tokens,
        chat_template=tiny.QWEN_CHAT,
    )
    ids = tiny.qwen_ids(tokens)
    config = tf.HyperCLOVAXVisionV2Config(
        text_config={
            "model_type": "hyperclovax",
            **tiny.text_config(tokens, logits_scaling=0.125, embedding_multiplier=3.0),
        },
        vision_config={
            "model_type": "qwen2_5_vl_vision",
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": tiny.HIDDEN,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        image_token_id=ids["image_token_id"],
        video_token_id=ids["video_token_id"],
        tie_word_embeddings=False,
    )
    return seeded(tf.HyperCLOVAXVisionV2ForConditionalGeneration, config), processor


def seeded(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config).eval()
    model.generation_config.eos_token_id = config.get_text_config().eos_token_id
    model.generation_config.pad_token_id = config.get_text_config().pad_token_id
    return larger(model)


@torch.no_grad()
def larger(model: Any) -> Any:
    """Logits as large as a trained model's, so that what happens to them shows."""
    lm_head(model).weight.mul_(15)
    return model


UNUSUAL = {"gemma4": gemma4, "muse_glimmer": muse_glimmer, "hyperclovax": hyperclovax}
