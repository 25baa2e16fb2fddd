"""One table of tiny models: real classes from transformers, random weights, a tokenizer of bytes.

`build(name)` gives a model of about a million parameters and its processor, the same each time.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 640
HIDDEN = 128

CORPUS = (
    "You are a helpful assistant. How many digits are there? Where is the button? What is said?",
    "Look at the picture and the film, listen to the sound, and answer. 0 1 2 3 4 5 6 7 8 9",
)


def tokenizer(specials: dict[str, str], others: tuple[str, ...] = (), bos: str = "<bos>") -> Any:
    """Byte-level BPE of 560 entries, special tokens first; `specials` become attributes."""
    tokens = ["<pad>", bos, "<|im_start|>", "<|im_end|>", *specials.values(), *others]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=560,
        special_tokens=list(dict.fromkeys(tokens)),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.add_tokens([AddedToken("</answer>", special=False, normalized=False)])
    made = tf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=bos,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        extra_special_tokens={**specials, **{f"extra_{i}": t for i, t in enumerate(others)}},
        model_max_length=4096,
    )
    return made


def chat(image: str = "", video: str = "", audio: str = "", first: str = "") -> str:
    """A chat template with these texts in the place of media."""
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        + first
        + "{% for c in m['content'] %}"
        f"{{% if c['type'] == 'image' %}}{image}{{% elif c['type'] == 'video' %}}{video}"
        f"{{% elif c['type'] == 'audio' %}}{audio}{{% else %}}{{{{ c['text'] }}}}{{% endif %}}"
        "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def text_config(tokens: Any, **more: Any) -> dict[str, Any]:
    """The language part of every tiny model."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
        **more,
    }


def rope(*sections: int, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": list(sections), "rope_theta": 1e4, **more}


QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
QWEN_CHAT = chat(
    image="<|vision_start|><|image_pad|><|vision_end|>",
    video="<|vision_start|><|video_pad|><|vision_end|>",
)


def qwen_ids(tokens: Any) -> dict[str, int]:
    return {f"{name}_id": tokens.convert_tokens_to_ids(token) for name, token in QWEN.items()}


def pixels(patch: int, frames: int = 1) -> dict[str, int]:
    """A budget of 4 to 16 patches a side, for one picture or for all frames."""
    return {"shortest_edge": patch**2 * 16 * frames, "longest_edge": patch**2 * 64 * frames}


def qwen2_vl() -> tuple[Any, Any]:
    tokens = tokenizer(QWEN)
    processor = tf.Qwen2VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=pixels(14), patch_size=14),
        video_processor=tf.Qwen2VLVideoProcessor(size=pixels(14), patch_size=14),
        tokenizer=tokens,
        chat_template=QWEN_CHAT,
    )
    config = tf.Qwen2VLConfig(
        text_config=text_config(tokens, rope_parameters=rope(4, 6, 6)),
        vision_config={
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": HIDDEN,
            "num_heads": 2,
            "mlp_ratio": 2,
        },
        **qwen_ids(tokens),
    )
    return tf.Qwen2VLForConditionalGeneration(config), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    tokens = tokenizer(QWEN)
    processor = tf.Qwen2_5_VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=pixels(14), patch_size=14),
        video_processor=tf.Qwen2VLVideoProcessor(size=pixels(14), patch_size=14),
        tokenizer=tokens,
        chat_template=QWEN_CHAT,
    )
    config = tf.Qwen2_5_VLConfig(
        text_config=text_config(tokens, rope_parameters=rope(4, 6, 6)),
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        **qwen_ids(tokens),
    )
    return tf.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_processor(tokens: Any) -> Any:
    normal = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 16}
    return tf.Qwen3VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=pixels(16), **normal),
        video_processor=tf.Qwen3VLVideoProcessor(size=pixels(16, frames=4), **normal),
        tokenizer=tokens,
        chat_template=QWEN_CHAT,
    )


QWEN3_VISION = {
    "depth": 3,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": HIDDEN,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}
EXPERTS = {
    "num_attention_heads": 8,
    "moe_intermediate_size": 48,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}


def qwen3_vl() -> tuple[Any, Any]:
    tokens = tokenizer(QWEN)
    config = tf.Qwen3VLConfig(
        text_config=text_config(tokens, rope_parameters=rope(6, 5, 5, mrope_interleaved=True)),
        vision_config=QWEN3_VISION,
        **qwen_ids(tokens),
    )
    return tf.Qwen3VLForConditionalGeneration(config), qwen3_processor(tokens)


def qwen3_vl_moe() -> tuple[Any, Any]:
    tokens = tokenizer(QWEN)
    config = tf.Qwen3VLMoeConfig(
        text_config=text_config(
            tokens, rope_parameters=rope(6, 5, 5, mrope_interleaved=True), **EXPERTS
        ),
        vision_config=QWEN3_VISION,
        **qwen_ids(tokens),
    )
    return tf.Qwen3VLMoeForConditionalGeneration(config), qwen3_processor(tokens)


DELTA = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": rope(2, 1, 1, mrope_interleaved=True, partial_rotary_factor=0.25),
}
QWEN3_5_VISION = {k: v for k, v in QWEN3_VISION.items() if k != "deepstack_visual_indexes"}


def qwen3_5() -> tuple[Any, Any]:
    tokens = tokenizer(QWEN)
    config = tf.Qwen3_5Config(
        text_config=text_config(tokens, num_hidden_layers=5, **DELTA),
        vision_config=QWEN3_5_VISION,
        **qwen_ids(tokens),
    )
    return tf.Qwen3_5ForConditionalGeneration(config), qwen3_processor(tokens)


def qwen3_5_moe() -> tuple[Any, Any]:
    tokens = tokenizer(QWEN)
    config = tf.Qwen3_5MoeConfig(
        text_config=text_config(
            tokens,
            num_hidden_layers=5,
            num_attention_heads=8,
            moe_intermediate_size=48,
            shared_expert_intermediate_size=48,
            num_experts=8,
            num_experts_per_tok=2,
            **DELTA,
        ),
        vision_config=QWEN3_5_VISION,
        **qwen_ids(tokens),
    )
    return tf.Qwen3_5MoeForConditionalGeneration(config), qwen3_processor(tokens)


OMNI = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
OMNI_CHAT = chat(
    image="<|vision_bos|><|IMAGE|><|vision_eos|>",
    video="<|vision_bos|><|VIDEO|><|vision_eos|>",
    audio="<|audio_bos|><|AUDIO|><|audio_eos|>",
)


def ears(seconds: int = 4) -> Any:
    """Spectrograms of 16 bins over chunks of so many seconds."""
    return tf.WhisperFeatureExtractor(feature_size=16, chunk_length=seconds)


AUDIO_TOWER = {
    "num_mel_bins": 16,
    "d_model": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "max_source_positions": 200,
}


def qwen2_5_omni() -> tuple[Any, Any]:
    tokens = tokenizer(OMNI)
    processor = tf.Qwen2_5OmniProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=pixels(14), patch_size=14),
        video_processor=tf.Qwen2VLVideoProcessor(size=pixels(14), patch_size=14),
        feature_extractor=ears(),
        tokenizer=tokens,
        chat_template=OMNI_CHAT,
    )
    ids = {name: tokens.convert_tokens_to_ids(token) for name, token in OMNI.items()}
    config = tf.Qwen2_5OmniThinkerConfig(
        text_config=text_config(tokens, rope_parameters=rope(4, 6, 6)),
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        audio_config={**AUDIO_TOWER, "output_dim": HIDDEN, "n_window": 100},
        image_token_index=ids["image_token"],
        audio_token_index=ids["audio_token"],
        video_token_index=ids["video_token"],
        image_token_id=ids["image_token"],
        audio_token_id=ids["audio_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        pad_token_id=tokens.pad_token_id,
    )
    return tf.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def qwen3_omni() -> tuple[Any, Any]:
    tokens = tokenizer(OMNI)
    normal = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 16}
    processor = tf.Qwen3OmniMoeProcessor(
        image_processor=tf.Qwen2VLImageProcessor(size=pixels(16), **normal),
        video_processor=tf.Qwen2VLVideoProcessor(size=pixels(16), **normal),
        feature_extractor=ears(),
        tokenizer=tokens,
        chat_template=OMNI_CHAT,
    )
    ids = {name: tokens.convert_tokens_to_ids(token) for name, token in OMNI.items()}
    config = tf.Qwen3OmniMoeThinkerConfig(
        text_config=text_config(
            tokens, rope_parameters=rope(6, 5, 5, mrope_interleaved=True), **EXPERTS
        ),
        vision_config={**QWEN3_VISION, "patch_size": 16},
        audio_config={
            **AUDIO_TOWER,
            "output_dim": HIDDEN,
            "n_window": 50,
            "n_window_infer": 100,
            "downsample_hidden_size": 16,
        },
        image_token_id=ids["image_token"],
        audio_token_id=ids["audio_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        pad_token_id=tokens.pad_token_id,
    )
    return tf.Qwen3OmniMoeThinkerForConditionalGeneration(config), processor


def qwen2_audio(seconds: int = 4) -> tuple[Any, Any]:
    """Sounds are padded to so many seconds; the released model's, and vLLM's, are 30."""
    names = {k: OMNI[k] for k in ("audio_token", "audio_bos_token", "audio_eos_token")}
    tokens = tokenizer(names)
    processor = tf.Qwen2AudioProcessor(
        feature_extractor=ears(seconds),
        tokenizer=tokens,
        chat_template=chat(audio="<|audio_bos|><|AUDIO|><|audio_eos|>\n"),
    )
    config = tf.Qwen2AudioConfig(
        text_config={"model_type": "qwen2", **text_config(tokens, num_key_value_heads=4)},
        audio_config={**AUDIO_TOWER, "max_source_positions": 50 * seconds},
        audio_token_index=tokens.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return tf.Qwen2AudioForConditionalGeneration(config), processor


SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "vision_use_head": False,
}


def llava_onevision() -> tuple[Any, Any]:
    tokens = tokenizer({"image_token": "<image>", "video_token": "<video>"})
    grids = [[56, 56], [56, 112], [112, 56], [112, 112]]
    size = {"height": 56, "width": 56}
    processor = tf.LlavaOnevisionProcessor(
        image_processor=tf.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grids),
        video_processor=tf.LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokens,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        # Pictures before everything else, as the family's own template puts them.
        chat_template=chat(
            video="<video>\n",
            first="{% for c in m['content'] if c['type'] == 'image' %}<image>\n{% endfor %}",
        ),
    )
    config = tf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **text_config(tokens)},
        vision_config=SIGLIP,
        image_grid_pinpoints=grids,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_token_index=tokens.image_token_id,
        image_token_id=tokens.image_token_id,
        video_token_index=tokens.video_token_id,
        video_token_id=tokens.video_token_id,
    )
    return tf.LlavaOnevisionForConditionalGeneration(config), processor


def internvl() -> tuple[Any, Any]:
    tokens = tokenizer(
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
    )
    size = {"height": 56, "width": 56}
    processor = tf.InternVLProcessor(
        image_processor=tf.GotOcr2ImageProcessor(
            size=size, crop_to_patches=True, min_patches=1, max_patches=3
        ),
        video_processor=tf.InternVLVideoProcessor(size=size),
        tokenizer=tokens,
        image_seq_length=4,
        chat_template=chat(image="<IMG_CONTEXT>\n", video="<video>\n"),
    )
    config = tf.InternVLConfig(
        text_config={"model_type": "qwen2", **text_config(tokens)},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        image_seq_length=4,
        image_token_id=tokens.context_image_token_id,
    )
    return tf.InternVLForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    names = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tokens = tokenizer(names)
    processor = tf.Gemma3Processor(
        image_processor=tf.Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokens,
        image_seq_length=4,
        chat_template="<bos>" + chat(image="<start_of_image>"),
    )
    config = tf.Gemma3Config(
        text_config=text_config(
            tokens,
            head_dim=24,
            query_pre_attn_scalar=24,
            sliding_window=24,
            num_hidden_layers=7,
            tie_word_embeddings=True,
        ),
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=tokens.boi_token_id,
        eoi_token_index=tokens.eoi_token_id,
        image_token_index=tokens.image_token_id,
        image_token_id=tokens.image_token_id,
    )
    return tf.Gemma3ForConditionalGeneration(config), processor


GEMMA4 = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "video_token": "<|video|>",
}
GEMMA4_VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 32,
    "patch_size": 14,
    "pooling_kernel_size": 2,
    "position_embedding_size": 320,  # of a picture one patch high
}


def gemma4_processor(tokens: Any) -> Any:
    patches = {"patch_size": 14, "max_soft_tokens": 70, "pooling_kernel_size": 2}
    return tf.Gemma4Processor(
        image_processor=tf.Gemma4ImageProcessor(**patches),
        video_processor=tf.Gemma4VideoProcessor(**patches),
        feature_extractor=tf.Gemma4AudioFeatureExtractor(feature_size=16),
        tokenizer=tokens,
        chat_template="<bos>" + chat(image="<|image|>", video="<|video|>", audio="<|audio|>"),
    )


def gemma4_text(tokens: Any, **more: Any) -> dict[str, Any]:
    """Wider heads in full layers, a cap: as all sizes of the released model."""
    return text_config(
        tokens,
        sliding_window=24,
        final_logit_softcapping=30.0,
        tie_word_embeddings=True,
        vocab_size_per_layer_input=VOCABULARY,
        **more,
    )


def gemma4_ids(tokens: Any) -> dict[str, int]:
    return {f"{name}_id": tokens.convert_tokens_to_ids(token) for name, token in GEMMA4.items()}


def gemma4() -> tuple[Any, Any]:
    """The small sizes: inputs by layer, one key head, keys shared by the last layers, sound."""
    tokens = tokenizer(GEMMA4)
    config = tf.Gemma4Config(
        text_config=gemma4_text(
            tokens,
            num_key_value_heads=1,
            head_dim=48,
            global_head_dim=96,
            num_hidden_layers=10,
            layer_types=(["sliding_attention"] * 4 + ["full_attention"]) * 2,
            num_kv_shared_layers=5,
            use_double_wide_mlp=True,
            hidden_size_per_layer_input=16,
        ),
        vision_config=GEMMA4_VISION,
        audio_config={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "subsampling_conv_channels": [16, 8],
            "output_proj_dims": 64,
        },
        **gemma4_ids(tokens),
    )
    return tf.Gemma4ForConditionalGeneration(config), gemma4_processor(tokens)


def gemma4_moe() -> tuple[Any, Any]:
    """The large sizes: two-way pictures, fewer key heads in full layers, whose keys are values too,
    and experts.
    """
    tokens = tokenizer(GEMMA4)
    config = tf.Gemma4Config(
        text_config=gemma4_text(
            tokens,
            num_attention_heads=8,
            num_key_value_heads=4,
            num_global_key_value_heads=2,
            global_head_dim=64,
            attention_k_eq_v=True,
            num_hidden_layers=7,
            layer_types=["full_attention", *["sliding_attention"] * 5, "full_attention"],
            hidden_size_per_layer_input=0,
            use_bidirectional_attention="vision",
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=48,
        ),
        vision_config={**GEMMA4_VISION, "standardize": True},
        audio_config=None,
        **gemma4_ids(tokens),
    )
    return tf.Gemma4ForConditionalGeneration(config), gemma4_processor(tokens)


def smolvlm() -> tuple[Any, Any]:
    names = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "video_token": "<video>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    rows = tuple(f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4))
    tokens = tokenizer(names, rows)
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    template = chat(image="<image>", video="<video>")
    processor = tf.SmolVLMProcessor(
        image_processor=tf.SmolVLMImageProcessor(**sizes),
        video_processor=tf.SmolVLMVideoProcessor(
            **sizes, video_sampling={"fps": 1, "max_frames": 8, "video_size": {"longest_edge": 32}}
        ),
        tokenizer=tokens,
        image_seq_len=4,
        chat_template=template,
    )
    config = tf.SmolVLMConfig(
        text_config={"model_type": "llama", **text_config(tokens, num_key_value_heads=4)},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 4,
        },
        image_token_id=tokens.image_token_id,
        scale_factor=4,
        pad_token_id=tokens.pad_token_id,
    )
    return tf.SmolVLMForConditionalGeneration(config), processor


def glm4v(kind: str = "Glm4v", processor: str = "Glm4v", model: str = "Glm4v") -> tuple[Any, Any]:
    """A GLM: its configuration and parts, its processor and its model, by their classes' names."""
    names = {
        "image_token": "<|image|>",
        "video_token": "<|video|>",
        "image_start": "<|begin_of_image|>",
        "image_end": "<|end_of_image|>",
        "video_start": "<|begin_of_video|>",
        "video_end": "<|end_of_video|>",
    }
    tokens = tokenizer(names)
    made = getattr(tf, f"{processor}Processor")(
        image_processor=getattr(tf, f"{kind}ImageProcessor")(size=pixels(14, 2), patch_size=14),
        video_processor=getattr(tf, f"{kind}VideoProcessor")(size=pixels(14, 4), patch_size=14),
        tokenizer=tokens,
        chat_template=chat(
            image="<|begin_of_image|><|image|><|end_of_image|>",
            video="<|begin_of_video|><|video|><|end_of_video|>",
        ),
    )
    config = getattr(tf, f"{kind}Config")(
        text_config=text_config(tokens, rope_parameters=rope(2, 3, 3, partial_rotary_factor=0.5)),
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "image_size": 56,
        },
        image_token_id=tokens.image_token_id,
        video_token_id=tokens.video_token_id,
        image_start_token_id=tokens.convert_tokens_to_ids("<|begin_of_image|>"),
        image_end_token_id=tokens.convert_tokens_to_ids("<|end_of_image|>"),
        video_start_token_id=tokens.convert_tokens_to_ids("<|begin_of_video|>"),
        video_end_token_id=tokens.convert_tokens_to_ids("<|end_of_video|>"),
    )
    return getattr(tf, f"{model}ForConditionalGeneration")(config), made


def lfm2_vl() -> tuple[Any, Any]:
    names = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail_token": "<|img_thumbnail|>",
    }
    rows = tuple(f"<|img_row_{i}_col_{j}|>" for i in range(1, 4) for j in range(1, 4))
    tokens = tokenizer(names, rows)
    processor = tf.Lfm2VlProcessor(
        image_processor=tf.Lfm2VlImageProcessor(
            tile_size=64, min_image_tokens=4, max_image_tokens=8, max_tiles=3
        ),
        tokenizer=tokens,
        chat_template=chat(image="<image>"),
    )
    config = tf.Lfm2VlConfig(
        text_config={
            "model_type": "lfm2",
            **text_config(
                tokens,
                num_hidden_layers=6,
                layer_types=["conv", "conv", "full_attention"] * 2,
                block_multiple_of=64,
                tie_word_embeddings=True,
            ),
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_patches": 64,
            "patch_size": 16,
            "vision_use_head": False,
        },
        image_token_id=tokens.image_token_id,
        projector_hidden_size=64,
    )
    return tf.Lfm2VlForConditionalGeneration(config), processor


LIBROSA = importlib.util.find_spec("librosa") is not None
"""Whether Nemotron-H Omni hears: transformers makes its spectrograms with it."""
PARAKEET = {
    "num_mel_bins": 16,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "subsampling_conv_channels": 8,
    "projection_hidden_size": 64,
    "projection_bias": False,
}
NEMOTRON_LAYERS = {"m": "linear_attention", "e": "moe", "a": "full_attention"}


def nemotron_h_omni() -> tuple[Any, Any]:
    names = {
        "image_token": "<image>",
        "video_token": "<video>",
        "audio_token": "<so_embedding>",
        "image_start_token": "<img>",
        "image_end_token": "</img>",
    }
    tokens = tokenizer(names, ("<so_start>", "<so_end>"))
    processor = tf.NemotronH_Omni_Reasoning_V3Processor(
        image_processor=tf.NemotronH_Omni_Reasoning_V3ImageProcessor(
            min_num_patches=16, max_num_patches=64
        ),
        video_processor=tf.NemotronH_Omni_Reasoning_V3VideoProcessor(
            video_target_num_patches=16, norm_mean=[0.5] * 3, norm_std=[0.5] * 3
        ),
        feature_extractor=tf.ParakeetFeatureExtractor(feature_size=16) if LIBROSA else ears(),
        tokenizer=tokens,
        chat_template=chat(image="<image>", video="<video>", audio="<so_embedding>"),
    )
    text = text_config(
        tokens,
        num_attention_heads=8,
        layers_block_type=[NEMOTRON_LAYERS[letter] for letter in "mememae"],
        ssm_state_size=16,
        mamba_num_heads=4,
        mamba_head_dim=16,
        n_groups=2,
        chunk_size=64,
        n_routed_experts=4,
        moe_intermediate_size=48,
        moe_shared_expert_intermediate_size=48,
        routed_scaling_factor=2.5,
    )
    del text["num_hidden_layers"]
    config = tf.NemotronH_Omni_Reasoning_V3_Config(
        text_config={"model_type": "nemotron_h", **text},
        vision_config={
            "model_type": "radio",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 16,
            "image_size": 128,
            "max_img_size": 256,
            "video_temporal_patch_size": 2,
        },
        vision_hidden_size=64,
        projector_hidden_size=64,
        audio_config=PARAKEET if LIBROSA else None,
        **{f"{kind}_token_id": getattr(tokens, f"{kind}_token_id") for kind in ("image", "video")},
        audio_token_id=tokens.audio_token_id,
    )
    return tf.NemotronH_Omni_Reasoning_V3(config), processor


@dataclass(frozen=True)
class Tiny:
    """A builder, the family that serves its model, and the media that its tests mix."""

    build: Callable[[], tuple[Any, Any]]
    family: str
    kinds: tuple[str, ...]


TINY = {
    "qwen2_vl": Tiny(qwen2_vl, "qwen2_vl", ("image", "video")),
    "qwen2_5_vl": Tiny(qwen2_5_vl, "qwen2_5_vl", ("image", "video")),
    "qwen3_vl": Tiny(qwen3_vl, "qwen3_vl", ("image", "video")),
    "qwen3_vl_moe": Tiny(qwen3_vl_moe, "qwen3_vl", ("image", "video")),
    "qwen3_5": Tiny(qwen3_5, "qwen3_5", ("image", "video")),
    "qwen3_5_moe": Tiny(qwen3_5_moe, "qwen3_5", ("image", "video")),
    "qwen2_5_omni": Tiny(
        qwen2_5_omni, "qwen2_5_omni", ("image", "video", "audio", "sounding clip")
    ),
    "qwen3_omni": Tiny(qwen3_omni, "qwen3_omni", ("image", "video", "audio", "sounding clip")),
    "qwen2_audio": Tiny(qwen2_audio, "qwen2_audio", ("audio",)),
    "qwen2_audio_30s": Tiny(lambda: qwen2_audio(30), "qwen2_audio", ("audio",)),
    "llava_onevision": Tiny(llava_onevision, "llava_onevision", ("image", "video")),
    "internvl": Tiny(internvl, "internvl", ("image", "video")),
    "gemma3": Tiny(gemma3, "gemma3", ("image",)),
    "gemma4": Tiny(gemma4, "gemma4", ("image", "video", "audio")),
    "gemma4_moe": Tiny(gemma4_moe, "gemma4", ("image", "video")),
    "smolvlm": Tiny(smolvlm, "smolvlm", ("image", "video")),
    "lfm2_vl": Tiny(lfm2_vl, "lfm2_vl", ("image",)),
    "nemotron_h_omni": Tiny(
        nemotron_h_omni, "nemotron_h_omni", ("image", "video", *(("audio",) if LIBROSA else ()))
    ),
    "glm4v": Tiny(glm4v, "glm4v", ("image", "video")),
    "glmga": Tiny(lambda: glm4v("Glmga", "Glm46V", "Glm46V"), "glm4v", ("image", "video")),
}


@functools.cache
def _state(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model, processor = TINY[name].build()
    with torch.no_grad():
        for parameter in model.parameters():
            # Small or zero weights make outputs that no difference shows in.
            if not parameter.any():
                parameter.normal_(std=0.05)
            elif parameter.dim() > 1:
                parameter.mul_(3)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model.eval(), processor


def build(name: str) -> tuple[Any, Any]:
    """A fresh copy of a tiny model, in float32 and evaluation mode, and its processor."""
    import copy

    return copy.deepcopy(_state(name))
