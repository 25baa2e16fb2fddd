"""Make the starting checkpoints of configs/modalities: real model classes, under 1 M parameters.

    python tools/make_modality_models.py OUT [--kinds audio video ...]

builds each kind's model from random weights and stops a short supervised phase on the kind's
training split while the model still errs often.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from make_tiny_model import ROLES, SPECIAL_TOKENS, build_tokenizer

CONFIGS = Path(__file__).parent.parent / "configs" / "modalities"

CORPUS = (
    "You are a helpful assistant. system\n user\n assistant\n",
    "Write the final answer between <answer> </answer> tags, once.",
    "The answer is the letter of the right option. (A) (B) (C) (D) left right up down",
    "The answer is one of these choices, word for word: one two three four",
    "Which pictures show a disc? none the first the second both",
    "Which way does the disc move, and how does the tone? rising falling",
    "How many beeps are heard? Instruction: press the red green blue button",
    "Where on the screen is the element to act on? The answer is one point (x, y).",
)
OMNI_ROLES = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 512
HIDDEN = 96
PATCH = 14
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
MEL_BINS = 32
CHUNK_SECONDS = 2
TEXT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": HIDDEN,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "max_position_embeddings": 4096,
    "initializer_range": 0.06,
}
MROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e4}
VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": HIDDEN,
    "patch_size": PATCH,
    "window_size": 56,
    "fullatt_block_indexes": [1],
    "initializer_range": 0.06,
}
EARS = {
    "num_mel_bins": MEL_BINS,
    "d_model": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "max_source_positions": 50 * CHUNK_SECONDS,
    "initializer_range": 0.06,
}

Built = tuple[Any, Any]


def chat(media: Mapping[str, str]) -> str:
    """A chat template that writes these texts in the place of media."""
    cases = "".join(
        f"{{% {'el' if i else ''}if c['type'] == '{kind}' %}}{text}"
        for i, (kind, text) in enumerate(media.items())
    )
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        f"{cases}{{% else %}}{{{{ c['text'] }}}}{{% endif %}}{{% endfor %}}{{% endif %}}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def qwen2_5_vl() -> Built:
    """Sees: pictures, clips, screens."""
    import transformers as tf

    seen = "<|vision_start|>{}<|vision_end|>"
    template = chat({"image": seen.format("<|image_pad|>"), "video": seen.format("<|video_pad|>")})
    tokens = build_tokenizer(SPECIAL_TOKENS, ROLES, CORPUS, template)
    processor = tf.Qwen2_5_VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=PIXELS, patch_size=PATCH),
        video_processor=tf.Qwen2VLVideoProcessor(size=PIXELS, patch_size=PATCH),
        tokenizer=tokens,
        chat_template=template,
    )
    config = tf.Qwen2_5_VLConfig(
        text_config={**text(tokens), "rope_parameters": MROPE},
        vision_config=VISION,
        **{f"{role}_id": tokens.convert_tokens_to_ids(token) for role, token in ROLES.items()},
    )
    return tf.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen2_audio() -> Built:
    """Hears."""
    import transformers as tf

    roles = {role: token for role, token in OMNI_ROLES.items() if role.startswith("audio")}
    template = chat({"audio": "<|audio_bos|><|AUDIO|><|audio_eos|>"})
    tokens = build_tokenizer((*CHAT_TOKENS, *roles.values()), roles, CORPUS, template)
    processor = tf.Qwen2AudioProcessor(
        feature_extractor=ears(), tokenizer=tokens, chat_template=template
    )
    config = tf.Qwen2AudioConfig(
        text_config={"model_type": "qwen2", **text(tokens)},
        audio_config=EARS,
        audio_token_index=tokens.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return tf.Qwen2AudioForConditionalGeneration(config), processor


def qwen2_5_omni() -> Built:
    """The thinker: sees and hears, a clip with its own sound."""
    import transformers as tf

    seen = "<|vision_bos|>{}<|vision_eos|>"
    template = chat(
        {
            "image": seen.format("<|IMAGE|>"),
            "video": seen.format("<|VIDEO|>"),
            "audio": "<|audio_bos|><|AUDIO|><|audio_eos|>",
        }
    )
    tokens = build_tokenizer((*CHAT_TOKENS, *OMNI_ROLES.values()), OMNI_ROLES, CORPUS, template)
    processor = tf.Qwen2_5OmniProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=PIXELS, patch_size=PATCH),
        video_processor=tf.Qwen2VLVideoProcessor(size=PIXELS, patch_size=PATCH),
        feature_extractor=ears(),
        tokenizer=tokens,
        chat_template=template,
    )
    ids = {role: tokens.convert_tokens_to_ids(token) for role, token in OMNI_ROLES.items()}
    media = {
        f"{kind}_token_{form}": ids[f"{kind}_token"]
        for kind in ("image", "audio", "video")
        for form in ("id", "index")
    }
    config = tf.Qwen2_5OmniThinkerConfig(
        text_config={**text(tokens), "rope_parameters": MROPE},
        vision_config=VISION,
        audio_config={**EARS, "output_dim": HIDDEN, "n_window": 100},
        **media,
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        pad_token_id=tokens.pad_token_id,
    )
    return tf.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


MODELS: dict[str, tuple[Callable[[], Built], int]] = {
    "two_images": (qwen2_5_vl, 100),
    "video": (qwen2_5_vl, 100),
    "audio": (qwen2_audio, 100),
    "audio_video": (qwen2_5_omni, 100),
    "screenshot": (qwen2_5_vl, 200),
}
"""A kind's model, and the supervised steps after which it still errs often on validation media."""


def text(tokens: Any) -> dict[str, Any]:
    """The language part, with this tokenizer's ids."""
    ids = {f"{name}_token_id": getattr(tokens, f"{name}_token_id") for name in ("eos", "pad")}
    return {**TEXT, **ids, "bos_token_id": tokens.pad_token_id, "tie_word_embeddings": False}


def ears() -> Any:
    """Spectrograms, every sound padded to the same few seconds."""
    import transformers as tf

    return tf.WhisperFeatureExtractor(feature_size=MEL_BINS, chunk_length=CHUNK_SECONDS)


def build(kind: str, seed: int) -> Built:
    """An untrained model in float32 and its processor, the same ones for the same seed."""
    import torch

    torch.manual_seed(seed)
    model, processor = MODELS[kind][0]()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


def supervised(kind: str, start: Path, run: Path) -> list[str]:
    """Overrides that turn a kind's configuration into its supervised phase, on validation media."""
    from mmrl.config import load_config

    held_out = load_config(CONFIGS / f"{kind}.yaml").data[0].eval_path
    assert held_out is not None
    return [
        f"run={run}",
        f"model.path={start}",
        f"data.eval_path={held_out.with_stem('validation')}",
        "algorithm={name: sft}",
        "rollout.engine=targets",
        "optimizer={learning_rate: 1.5e-3, betas: [0.9, 0.95], warmup_steps: 20}",
        f"trainer={{steps: {MODELS[kind][1]}, prompts_per_step: 32, write_rollouts_every: 50}}",
    ]


def make(kind: str, out: Path, seed: int = 0) -> Path:
    """Build a kind's starting checkpoint in OUT/KIND, or find the one already there."""
    from mmrl import api, checkpoint
    from mmrl.config import load_config

    folder = out / kind
    if (folder / "config.json").is_file():
        return folder
    untrained, run = out / "untrained" / kind, out / "sft" / kind
    model, processor = build(kind, seed)
    print(f"{kind}: {sum(p.numel() for p in model.parameters()):,} parameters")
    for part in (model, processor):
        part.save_pretrained(untrained)
    config = load_config(CONFIGS / f"{kind}.yaml", supervised(kind, untrained, run))
    api.train(config, overwrite=True)
    found = checkpoint.latest(run)
    assert found is not None, "a finished run has a checkpoint"
    found.path.rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for kind in args.kinds:
        make(kind, args.out, args.seed)


if __name__ == "__main__":
    main()
