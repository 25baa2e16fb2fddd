"""What no rule gives of tiny models of types without a family: `other_types` makes them of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.families.tiny import HIDDEN, QWEN, VOCABULARY, pixels, rope

Settings = Mapping[str, Any]

SQUARE = {"height": 56, "width": 56}
WINDOWS = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 24,
}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
QWEN_ROPE = {"rope_parameters": rope(4, 6, 6)}


@dataclass(frozen=True)
class Recipe:
    """What no rule gives of a tiny model.

    `names` are special tokens by the tokenizer's attributes, `others` more of them; `marks` the
    text of each kind of medium in the chat template. `text` and `vision` are settings of those
    configurations, `config` of the outer one and others inside it; `image`, `video` and `sound` of
    the parts of the processor, `processor` of itself. `classes` replace what the library's tables
    say, `encoder` is the type of vision encoder. `{"token": NAME}` stands for a token's id.
    `spaced`: the tokenizer puts a space in front of every text, whatever stands there.
    """

    names: Settings
    marks: Settings
    others: tuple[str, ...] = ()
    text: Settings = field(default_factory=dict)
    vision: Settings = field(default_factory=dict)
    config: Settings = field(default_factory=dict)
    image: Settings = field(default_factory=dict)
    video: Settings = field(default_factory=dict)
    sound: Settings = field(default_factory=dict)
    processor: Settings = field(default_factory=dict)
    classes: Settings = field(default_factory=dict)
    language: str = ""
    encoder: str = ""
    first: str = ""
    spaced: bool = False


def token(text: str) -> Settings:
    """Stands for the id of a token."""
    return {"token": text}


def qwen(patch: int, frames: int = 4, **more: Any) -> Recipe:
    """A model with the tokens and processors of Qwen's."""
    normal = HALF if patch == 16 else {}
    given = {
        "names": QWEN,
        "marks": QWEN_MARKS,
        "image": {"size": pixels(patch), "patch_size": patch, **normal},
        "video": {"size": pixels(patch, frames=frames), "patch_size": patch, **normal},
    }
    return Recipe(**{**given, **more})


QWEN_MARKS = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
QWEN_CLASSES = {
    "processor": "Qwen3VLProcessor",
    "image_processor": "Qwen2VLImageProcessor",
    "video_processor": "Qwen3VLVideoProcessor",
}
MIXED = {
    "rope_parameters": rope(4, 2, 2, mrope_interleaved=True, partial_rotary_factor=0.5),
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "num_hidden_layers": 4,
}
GLM = {
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "image_start": "<|begin_of_image|>",
    "image_end": "<|end_of_image|>",
    "video_start": "<|begin_of_video|>",
    "video_end": "<|end_of_video|>",
}
GLM_MARKS = {
    "image": "<|begin_of_image|><|image|><|end_of_image|>",
    "video": "<|begin_of_video|><|video|><|end_of_video|>",
}
MINICPM = Recipe(
    names={
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    },
    marks={"image": "<|image_pad|>", "video": "<|video_pad|>"},
    text=MIXED,
    vision={"image_size": 112, "insert_layer_id": 0},
    config={"insert_layer_id": 0, "image_size": 112, "patch_size": 14},
    image={"patch_size": 14, "scale_resolution": 112, "max_slice_nums": 2},
    video={"patch_size": 14, "scale_resolution": 112, "max_slice_nums": 1},
    language="qwen3_5_text",
    classes={
        "image_processor": "MiniCPMV4_6ImageProcessor",
        "video_processor": "MiniCPMV4_6VideoProcessor",
    },
)
LLAVA = Recipe(
    names={"image_token": "<image>"},
    marks={"image": "<image>"},
    config={"vision_feature_select_strategy": "full", "vision_feature_layer": -1},
    image={"size": SQUARE, "crop_size": SQUARE},
    processor={"patch_size": 14, "vision_feature_select_strategy": "full"},
    language="llama",
    encoder="siglip_vision_model",
    classes={"processor": "LlavaProcessor", "image_processor": "CLIPImageProcessor"},
)
GRIDS = [[56, 56], [56, 112], [112, 56]]
NEXT = {"size": SQUARE, "crop_size": SQUARE, "image_grid_pinpoints": GRIDS}
MUSE = {
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
MUSE_TEXT = {**WINDOWS, "layer_rope_theta": [1e4, 0, 1e4]}
MUSE_VISION = {
    "pos_emb_height": 8,
    "pos_emb_width": 8,
    "layer_types": ["window_attention", "full_attention"],
    "max_position_embeddings": 64,
}
MUSE_CONFIG = {"out_hidden_size": 256, "projector_hidden_size": 64}
COMMAND = {
    "image_token": "<|IMG_PATCH|>",
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}
SLICES = {"size": SQUARE, "crop_to_patches": True, "max_patches": 2}
PADDLE = {
    "image_token": "<|IMAGE_PLACEHOLDER|>",
    "video_token": "<|VIDEO|>",
    "vision_start_token": "<|IMAGE_START|>",
    "vision_end_token": "<|IMAGE_END|>",
}
SOUND = {
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
SOUND_MARKS = {"audio": "<|audio_start|><|audio_pad|><|audio_end|>"}
PIXTRAL = {"patch_size": {"height": 14, "width": 14}, "size": {"longest_edge": 112}}
SAM = {
    "hidden_size": 32,
    "output_channels": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_dim": 64,
}
SPEECH = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}

QFORMER = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "encoder_hidden_size": 64,
    "vocab_size": VOCABULARY,
}

CODES = tuple(f"IMGIMG{chr(65 + i // 10)}{chr(65 + i % 10)}Z" for i in range(16))
"""Chameleon's names of the entries of its code book: digits as letters."""

RECIPES: dict[str, Recipe] = {
    "aria": Recipe(
        names={"image_token": "<|img|>"},
        marks={"image": "<|img|>"},
        vision={"patch_size": 35, "image_size": 490},
        config={"projector_patch_to_query_dict": {196: 16, 784: 16}},
        image={"max_image_size": 490, "min_image_size": 56},
        processor={"size_conversion": {490: 16, 980: 16}},
        encoder="idefics3_vision",
    ),
    "aya_vision": Recipe(
        names={**COMMAND, "image_token": "<image>", "patch": "<|IMG_PATCH|>"},
        marks={"image": "<image>"},
        text=WINDOWS,
        config={
            "image_token_index": token("<|IMG_PATCH|>"),
            "downsample_factor": 2,
            "tie_word_embeddings": True,
        },
        image=SLICES,
        processor={"patch_size": 14, "img_size": 56, "downsample_factor": 2},
        encoder="siglip_vision_model",
    ),
    "chameleon": Recipe(
        names={"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"},
        marks={"image": "<image>"},
        others=CODES,
        config={
            "vq_config": {
                "embed_dim": 16,
                "num_embeddings": 16,
                "latent_channels": 16,
                "resolution": 32,
                "base_channels": 32,
                "channel_multiplier": [1, 1],
                "num_res_blocks": 1,
            },
            "vocabulary_map": {name: token(name) for name in ("<image>", *CODES)},
        },
        image={"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
        processor={"image_seq_length": 64},
    ),
    "cohere2_vision": Recipe(
        names=COMMAND,
        marks={"image": "<|IMG_PATCH|>"},
        text=WINDOWS,
        config={
            "alignment_intermediate_size": 128,
            "downsample_factor": 2,
            "tie_word_embeddings": True,
        },
        image={"size": SQUARE, "max_patches": 2, "patch_size": 2},
        encoder="siglip_vision_model",
    ),
    "cohere_compass": qwen(
        16,
        names={
            "image_token": "<|IMAGE_PAD|>",
            "video_token": "<|VIDEO_PAD|>",
            "vision_start_token": "<|VISION_START|>",
            "vision_end_token": "<|VISION_END|>",
        },
        marks={
            "image": "<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
            "video": "<|VISION_START|><|VIDEO_PAD|><|VISION_END|>",
        },
        text={
            **WINDOWS,
            "rope_parameters": {
                kind: rope(6, 5, 5, mrope_interleaved=True)
                for kind in ("sliding_attention", "full_attention")
            },
        },
        vision={"patch_size": 16, "depth": 3, "deepstack_visual_indexes": [0, 1]},
        classes={
            "image_processor": "Qwen2VLImageProcessor",
            "video_processor": "Qwen3VLVideoProcessor",
        },
    ),
    "cosmos3_edge": qwen(
        16,
        text={"rope_parameters": rope(6, 5, 5)},
        vision={"num_patches": 64, "patch_size": 16},
        config={"projector_hidden_size": 128},
        image={"size": pixels(16), "patch_size": 16},
        video={"size": pixels(16), "patch_size": 16},
    ),
    "cosmos3_omni": qwen(
        16,
        text={"rope_parameters": rope(6, 5, 5, mrope_interleaved=True)},
        vision={"patch_size": 16, "depth": 3, "deepstack_visual_indexes": [0, 1]},
        classes=QWEN_CLASSES,
    ),
    "deepseek_ocr2": Recipe(
        names={"image_token": "<image>"},
        marks={"image": "<image>\n"},
        text={"num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse", "sparse"]},
        vision={
            "sam_config": {
                **SAM,
                "image_size": 1024,
                "window_size": 14,
                "global_attn_indexes": [],
                "downsample_channels": [32, 64],
                "model_type": "deepseek_ocr2_sam_vision_model",
            },
            "encoder_config": {
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "layer_types": ["full_attention"] * 2,
                "model_type": "deepseek_ocr2_encoder",
            },
        },
        image={"size": {"height": 1024, "width": 1024}, "tile_size": 768, "crop_to_patches": False},
    ),
    "deepseek_vl": Recipe(
        names={"image_token": "<image_placeholder>"},
        marks={"image": "<image_placeholder>"},
        image={"size": SQUARE, "min_size": 14},
        processor={"num_image_tokens": 16},
    ),
    "deepseek_vl_hybrid": Recipe(
        names={"image_token": "<image_placeholder>"},
        marks={"image": "<image_placeholder>"},
        config={
            "high_res_vision_config": {
                **SAM,
                "image_size": 128,
                "window_size": 4,
                "global_attn_indexes": [1],
            },
        },
        image={
            "size": SQUARE,
            "min_size": 14,
            "high_res_size": {"height": 128, "width": 128},
        },
        processor={"num_image_tokens": 16},
    ),
    "ernie4_5_vl_moe": qwen(
        14,
        names={
            "image_token": "<|IMAGE_PLACEHOLDER|>",
            "image_start_token": "<|IMAGE_START|>",
            "image_end_token": "<|IMAGE_END|>",
            "video_token": "<|VIDEO_PLACEHOLDER|>",
            "video_start_token": "<|VIDEO_START|>",
            "video_end_token": "<|VIDEO_END|>",
        },
        marks={
            "image": "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
            "video": "<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>",
        },
        text={
            "rope_parameters": rope(6, 6, 4),
            "moe_intermediate_size": [48, 32],
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        },
        config={"tie_word_embeddings": False},
        video={"draw_on_frames": False, "size": pixels(14), "patch_size": 14},
    ),
    "exaone4_5": qwen(
        14,
        text=WINDOWS,
        vision={"fullatt_block_indexes": [1], "window_size": 56},
        language="exaone4",
        classes={
            "image_processor": "Qwen2VLImageProcessor",
            "video_processor": "Qwen2VLVideoProcessor",
        },
    ),
    "fuyu": Recipe(
        names={"image_token": "|SPEAKER|", "line": "|NEWLINE|", "open": "<0x04>", "front": "<s>"},
        marks={"image": ""},
        spaced=True,
        config={"patch_size": 14, "image_size": 56},
        image={"size": SQUARE, "patch_size": {"height": 14, "width": 14}},
    ),
    "gemma4_unified": Recipe(
        names={
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
            "video_token": "<|video|>",
        },
        marks={"image": "<|image|>", "audio": "<|audio|>", "video": "<|video|>"},
        first="<bos>",
        text={
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_hidden_layers": 4,
            "sliding_window": 128,
            "global_head_dim": 64,
        },
        vision={
            "patch_size": 16,
            "pooling_kernel_size": 2,
            "model_patch_size": 32,
            "mm_embed_dim": 64,
            "output_proj_dims": 64,
        },
        image={"patch_size": 16, "max_soft_tokens": 70, "pooling_kernel_size": 2},
        video={"patch_size": 16, "max_soft_tokens": 70, "pooling_kernel_size": 2},
    ),
    "glm5_next": Recipe(
        names=GLM,
        marks=GLM_MARKS,
        text={
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "indexed_attention"] * 2,
            "mlp_layer_types": ["dense", "dense", "sparse", "sparse"],
            "indexer_types": ["full"] * 4,
            "linear_head_dim": 16,
            "linear_num_heads": 4,
            "index_topk": 64,
            "index_head_dim": 16,
            "index_n_heads": 2,
            "num_key_value_heads": 4,
            "qk_rope_head_dim": 0,
            "head_dim": 0,
            "qk_nope_head_dim": 32,
            "index_kpool": 4,
            "hc_mult": 2,
            "hc_sinkhorn_iters": 3,
        },
        vision={"projection_intermediate_size": 128},
        image={"patch_size": 14, "min_image_tokens": 4, "max_image_tokens": 16},
        video={"patch_size": 14},
    ),
    "got_ocr2": Recipe(
        names={"image_token": "<imgpad>", "open": "<img>", "close": "</img>"},
        marks={"image": "<img><imgpad></img>"},
        vision={
            **SAM,
            "image_size": 1024,
            "patch_size": 16,
            "window_size": 14,
            "global_attn_indexes": [],
        },
        config={"image_seq_length": 256},
        image={"size": {"height": 1024, "width": 1024}},
    ),
    "granite4_vision": Recipe(
        names={"image_token": "<image>"},
        marks={"image": "<image>"},
        config={
            "image_grid_pinpoints": GRIDS,
            "vision_feature_select_strategy": "full",
            "vision_feature_layer": -1,
            "image_seq_length": 16,
            "spatial_target_layers": [0, 1],
            "qformer_config": {
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 128,
                "encoder_hidden_size": 64,
                "model_type": "blip_2_qformer",
            },
            "deepstack_layer_map": [(-1, 0)],
            "downsample_rate": "2/4",
        },
        image=NEXT,
        processor={
            "patch_size": 14,
            "vision_feature_select_strategy": "full",
            "downsample_rate": "2/4",
        },
        encoder="siglip_vision_model",
    ),
    "granite_speech": Recipe(
        names=SOUND,
        marks={"audio": "<|audio_pad|>"},
        config={
            "encoder_config": {
                "input_dim": 160,
                "num_layers": 2,
                "hidden_dim": 64,
                "num_heads": 2,
                "dim_head": 32,
            },
            "projector_config": {
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 128,
                "encoder_hidden_size": 64,
                "model_type": "blip_2_qformer",
                "cross_attention_frequency": 1,
            },
            "has_lora_adapter": False,
            "tie_word_embeddings": False,
        },
        sound={"projector_window_size": 15, "projector_downsample_rate": 5},
        processor={"audio_token": "<|audio_pad|>"},
    ),
    "hunyuan_vl": qwen(
        16,
        names={
            "image_token": "<|hy_img|>",
            "image_start_token": "<|hy_is|>",
            "image_end_token": "<|hy_ie|>",
            "im_start": "<|hy_is|>",
            "im_end": "<|hy_ie|>",
            "im_newline": "<|hy_in|>",
        },
        marks={"image": "<|hy_is|><|hy_img|><|hy_ie|>"},
        text={
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 4, 4, 4],
            }
        },
        vision={"max_image_size": 128, "min_image_size": 64, "patch_size": 16},
        config={"tie_word_embeddings": False},
        image={"size": pixels(16), "patch_size": 16},
    ),
    "hyperclovax_vision_v2": qwen(
        14,
        text={"logits_scaling": 8.0},
        vision={"fullatt_block_indexes": [1], "window_size": 56},
        config={"tie_word_embeddings": False},
        classes={
            "image_processor": "Qwen2VLImageProcessor",
            "video_processor": "Qwen2VLVideoProcessor",
        },
        language="hyperclovax",
        encoder="qwen2_5_vl_vision",
    ),
    "idefics2": Recipe(
        names={
            "image_token": "<image>",
            "image_boundary_token": "<fake_token_around_image>",
            "end": "<end_of_utterance>",
        },
        marks={"image": "<image>"},
        text={"sliding_window": 4096},
        config={
            "perceiver_config": {
                "hidden_size": HIDDEN,
                "resampler_n_latents": 8,
                "resampler_depth": 1,
                "resampler_n_heads": 2,
                "resampler_head_dim": 32,
                "num_key_value_heads": 2,
            }
        },
        image={"size": {"shortest_edge": 28, "longest_edge": 56}},
        processor={"image_seq_len": 8},
    ),
    "idefics3": Recipe(
        names={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global": "<global-img>",
            "end": "<end_of_utterance>",
        },
        marks={"image": "<image>"},
        others=tuple(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)),
        vision={"patch_size": 4, "image_size": 32},
        config={"scale_factor": 4, "pad_token_id": token("<pad>")},
        image={"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}},
        processor={"image_seq_len": 4},
    ),
    "inkling_mm_model": Recipe(
        names={
            "image_token": "<|unused_200054|>",
            "audio_token": "<|unused_200053|>",
            "image_bos_token": "<|content_image|>",
            "audio_bos_token": "<|content_audio_input|>",
        },
        marks={"image": "<|content_image|><|unused_200054|>"},
        text={
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 32,
            "sliding_window_size": 24,
            "d_rel": 4,
            "rel_extent": 64,
            "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding"],
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        },
        vision={"n_layers": 2, "patch_size": 40},
        config={"audio_config": {"text_hidden_size": HIDDEN}},
    ),
    "janus": Recipe(
        names={
            "image_token": "<image_placeholder>",
            "boi_token": "<begin_of_image>",
            "eoi_token": "<end_of_image>",
        },
        marks={"image": "<image_placeholder>"},
        vision={"projection_dim": HIDDEN, "depth": 2, "num_image_tokens": 16},
        config={
            "vq_config": {
                "num_embeddings": 16,
                "base_channels": 32,
                "latent_channels": 32,
                "channel_multiplier": [1, 1],
                "num_res_blocks": 1,
                "projection_dim": HIDDEN,
                "image_token_embed_dim": HIDDEN,
                "num_patches": 4,
            },
        },
        image={"size": SQUARE, "min_size": 14},
        processor={"num_image_tokens": 16, "use_default_system_prompt": False},
    ),
    "kimi_k25": Recipe(
        names={
            "image_token": "<|media_pad|>",
            "video_token": "<|kimi_k25_video_placeholder|>",
            "vision_start": "<|media_start|>",
            "vision_end": "<|media_end|>",
        },
        marks={
            "image": "<|media_start|><|media_pad|><|media_end|>",
            "video": "<|kimi_k25_video_placeholder|>",
        },
        text={"num_key_value_heads": 4, "head_dim": 16},
        vision={"pos_emb_height": 8, "pos_emb_width": 8},
        config={"projection_hidden_size": 64, "tie_word_embeddings": False},
        image={"patch_size": 14, "max_patches": 64, "size": {"max_height": 8, "max_width": 8}},
        language="deepseek_v3",
    ),
    "lfm2_vl": Recipe(
        names={
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
        marks={"image": "<image>"},
        others=tuple(f"<|img_row_{i}_col_{j}|>" for i in range(1, 4) for j in range(1, 4)),
        text={
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention", "conv", "conv"],
            "full_attn_idxs": [1],
            "block_auto_adjust_ff_dim": False,
        },
        vision={"patch_size": 16, "num_patches": 64},
        config={"projector_hidden_size": 64, "tie_word_embeddings": True},
        image={
            "tile_size": 64,
            "min_image_tokens": 4,
            "max_image_tokens": 16,
            "max_tiles": 2,
            "encoder_patch_size": 16,
        },
    ),
    "lighton_ocr": Recipe(
        names={
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
        marks={"image": "<|image_pad|>"},
        vision={"image_size": 112},
        config={"spatial_merge_size": 2, "tie_word_embeddings": False},
        image={"patch_size": {"height": 28, "width": 28}, "size": {"longest_edge": 112}},
        processor={"patch_size": 14, "spatial_merge_size": 2},
        language="qwen3",
        encoder="pixtral",
        classes={"image_processor": "PixtralImageProcessor"},
    ),
    "llama4": Recipe(
        names={
            "image_token": "<|image|>",
            "boi_token": "<|image_start|>",
            "eoi_token": "<|image_end|>",
            "patch_token": "<|patch|>",
            "across": "<|tile_x_separator|>",
            "down": "<|tile_y_separator|>",
        },
        marks={"image": "<|image|>"},
        text={
            "num_hidden_layers": 4,
            "intermediate_size_mlp": 128,
            "layer_types": ["chunked_attention", "full_attention"] * 2,
            "no_rope_layers": [1, 0, 1, 0],
            "attention_chunk_size": 32,
            "moe_layers": [1, 3],
            "num_experts_per_tok": 1,
        },
        vision={
            "vision_output_dim": 64,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
            "intermediate_size": 256,
        },
        config={"image_token_index": token("<|patch|>")},
        image={"size": SQUARE, "max_patches": 2},
        processor={"patch_size": 14, "pixel_shuffle_ratio": 0.5},
    ),
    "llava": LLAVA,
    "llava_next": replace(
        LLAVA,
        config={**LLAVA.config, "image_grid_pinpoints": GRIDS, "image_seq_length": 16},
        image=NEXT,
        classes={},
    ),
    "llava_next_video": replace(
        LLAVA,
        names={"image_token": "<image>", "video_token": "<video>"},
        marks={"image": "<image>", "video": "<video>"},
        config={**LLAVA.config, "image_grid_pinpoints": GRIDS, "image_seq_length": 16},
        image=NEXT,
        video={"size": SQUARE, "crop_size": SQUARE},
        classes={},
    ),
    "minicpmv4_6": MINICPM,
    "minicpmv4_7": MINICPM,
    "minimax_m3_vl": Recipe(
        names={
            "image_token": "]<]image[>[",
            "video_token": "]<]video[>[",
            "start": "]<]start of image[>[",
            "end": "]<]end of image[>[",
        },
        marks={"image": "]<]image[>[", "video": "]<]video[>["},
        text={
            "layer_types": ["full_attention", "minimax_m3_sparse", "full_attention"],
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "dense_intermediate_size": 128,
            "shared_intermediate_size": 48,
            "rotary_dim": 16,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "index_block_size": 16,
            "index_topk_blocks": 4,
            "intermediate_size": 48,
        },
        vision={"image_size": 112},
        config={"projector_hidden_size": HIDDEN, "merged_hidden_size": HIDDEN * 4},
        image={"size": pixels(14), "patch_size": 14},
        video={"size": pixels(14), "patch_size": 14},
    ),
    "mistral3": Recipe(
        names={
            "image_token": "[IMG]",
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
        },
        marks={"image": "[IMG]"},
        vision={"image_size": 112},
        config={"spatial_merge_size": 2, "tie_word_embeddings": False},
        image=PIXTRAL,
        processor={"patch_size": 14, "spatial_merge_size": 2},
        language="mistral",
        encoder="pixtral",
        classes={"image_processor": "PixtralImageProcessor", "processor": "PixtralProcessor"},
    ),
    "molmo2": Recipe(
        names={
            "image_token": "<|image|>",
            "video_token": "<|video|>",
            "image_patch": "<im_patch>",
            "image_start_token": "<im_start>",
            "low_res_image_start_token": "<low_res_im_start>",
            "image_end_token": "<im_end>",
            "frame_start_token": "<frame_start>",
            "frame_end_token": "<frame_end>",
            "image_col": "<im_col>",
            "image_low_res": "<im_low>",
        },
        marks={"image": "<|image|>"},
        text={"rope_scaling_layers": [0, 1, 2], "additional_vocab_size": 16},
        vision={"image_size": [56, 56], "num_position_embeddings": 16},
        config={
            "adapter_config": {
                "hidden_size": 64,
                "vision_feature_layer": [-1],
                "text_hidden_size": HIDDEN,
            }
        },
        image={
            "size": SQUARE,
            "max_crops": 2,
            "overlap_margins": [1, 1],
            "patch_size": 14,
        },
        video={"size": SQUARE, "patch_size": 14},
    ),
    "muse_glimmer": Recipe(
        names=MUSE,
        marks={"image": "<|patch|>", "video": "<|video|>"},
        text=MUSE_TEXT,
        vision=MUSE_VISION,
        config=MUSE_CONFIG,
        image={"patch_size": 14, "max_image_tokens": 16},
        video={"patch_size": 14},
    ),
    "muse_spark": Recipe(
        names=MUSE,
        marks={"image": "<|patch|>", "video": "<|video|>", "audio": "<|audio|>"},
        text={
            **MUSE_TEXT,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "moe_hidden_size": 64,
        },
        vision=MUSE_VISION,
        config={
            **MUSE_CONFIG,
            "audio_config": {
                "patch_sizes": [16, 6, 5, 4],
                "hidden_sizes": [8, 16, 32, 64],
                "depths": [1, 1, 1, 1],
                "num_hidden_layers": 4,
                "out_hidden_size": HIDDEN,
            },
        },
        image={"patch_size": 14, "max_image_tokens": 16},
        video={"patch_size": 14},
        classes={"image_processor": "MuseGlimmerImageProcessor"},
    ),
    "nemotron_h_omni": Recipe(
        names={
            "image_token": "<image>",
            "video_token": "<video>",
            "audio_token": "<so_embedding>",
            "image_start_token": "<img>",
            "image_end_token": "</img>",
            "open": "<so_start>",
            "close": "<so_end>",
        },
        marks={"image": "<image>"},
        text={
            "layers_block_type": [
                "linear_attention",
                "mlp",
                "full_attention",
                "linear_attention",
                "moe",
            ],
            "num_hidden_layers": 5,
            "ssm_state_size": 16,
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "chunk_size": 32,
            "moe_shared_expert_intermediate_size": 48,
        },
        vision={
            "patch_size": 16,
            "image_size": 128,
            "max_img_size": 256,
            "video_temporal_patch_size": 2,
        },
        config={"vision_hidden_size": 64, "projector_hidden_size": 64},
        image={"min_num_patches": 16, "max_num_patches": 64},
        sound={"feature_size": 16},
        classes={"feature_extractor": "WhisperFeatureExtractor"},
    ),
    "ovis2": Recipe(
        names={"image_token": "<image>"},
        marks={"image": "<image>"},
        others=("<IMG_START>", "<IMG_ATOM>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"),
        vision={"vocab_size": 64},
        config={
            "image_token_id": token("<IMG_ATOM>"),
            "visual_indicator_token_ids": [
                token(f"<IMG_{name}>") for name in ("START", "GRID", "COL", "ROW", "END")
            ],
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "tie_word_embeddings": False,
        },
        image=SLICES,
        processor={"image_seq_length": 16},
        language="qwen2",
    ),
    "paddleocr_vl": Recipe(
        names=PADDLE,
        marks={"image": "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"},
        text=QWEN_ROPE,
        config={"tie_word_embeddings": False},
        image={"size": pixels(14), "patch_size": 14},
    ),
    "paligemma": Recipe(
        names={"image_token": "<image>"},
        marks={"image": "<image>"},
        text={"vocab_size": VOCABULARY + 8},
        vision={"projection_dim": HIDDEN},
        config={
            "projection_dim": HIDDEN,
            "hidden_size": HIDDEN,
            "vocab_size": VOCABULARY + 8,
        },
        image={"size": SQUARE, "image_seq_length": 16},
        classes={"image_processor": "SiglipImageProcessor"},
        language="gemma",
        encoder="siglip_vision_model",
    ),
    "qianfan_ocr": Recipe(
        names={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "picture": "<image>",
        },
        marks={"image": "<image>"},
        vision={"image_size": [56, 56], "patch_size": [14, 14]},
        config={"image_token_id": token("<IMG_CONTEXT>"), "image_seq_length": 4},
        image=SLICES,
        processor={"image_seq_length": 4},
        language="qwen3",
    ),
    "qwen3_5": qwen(16, text=MIXED, vision={"patch_size": 16}, classes=QWEN_CLASSES),
    "qwen3_5_moe": qwen(16, text=MIXED, vision={"patch_size": 16}, classes=QWEN_CLASSES),
    "qwen3_asr": Recipe(
        names=SOUND,
        marks=SOUND_MARKS,
        config={
            "audio_config": {
                "num_mel_bins": 128,
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 128,
                "d_model": 64,
                "output_dim": HIDDEN,
                "n_window": 50,
                "n_window_infer": 100,
                "downsample_hidden_size": 16,
            }
        },
        sound={"feature_size": 128},
        language="qwen3",
    ),
    "glmasr": Recipe(
        names=SOUND,
        marks=SOUND_MARKS,
        config={
            "audio_config": {**SPEECH, "num_mel_bins": 128},
            "tie_word_embeddings": False,
        },
        sound={"feature_size": 128},
        processor={"audio_token": "<|audio_pad|>"},
        language="llama",
        classes={"feature_extractor": "WhisperFeatureExtractor"},
    ),
    "qwen4_exp": qwen(
        16,
        text={
            **MIXED,
            "layer_types": ["linear_attention", "indexed_attention"] * 2,
            "hc_lowrank": 16,
            "hc_count": 2,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 64,
            "indexer_compress_ratio": 4,
            "ple_embed_dim": 64,
            "ngram_vocab_size_base": 1000,
            "split_ngram_parts": 4,
        },
        vision={"patch_size": 16},
        classes=QWEN_CLASSES,
    ),
    "step3p7": Recipe(
        names={"image_token": "<im_patch>"},
        marks={"image": "<im_patch>"},
        others=("<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"),
        text={
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "share_expert_dim": 48,
            "num_sliding_attention_heads": 4,
            "sliding_window": 24,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        vision={"image_size": 112, "max_position_embeddings": 64},
        image={"size": {"height": 112, "width": 112}, "patch_size": 56},
    ),
    "video_llama_3": qwen(
        14,
        image={"size": pixels(14), "patch_size": 14, "merge_size": 2},
        video={"patch_size": 14, "size": pixels(14)},
        language="qwen2",
    ),
    "video_llava": replace(
        LLAVA,
        names={"image_token": "<image>", "video_token": "<video>"},
        marks={"image": "<image>", "video": "<video>"},
        config={
            "vision_feature_select_strategy": "default",
            "image_seq_length": 16,
            "vision_feature_layer": -1,
        },
        video={"size": SQUARE, "crop_size": SQUARE},
        processor={
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        encoder="clip_vision_model",
        classes={},
    ),
    "vipllava": replace(
        LLAVA,
        config={"vision_feature_layers": [-1, -2]},
        processor={
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        encoder="clip_vision_model",
    ),
    "voxtral": Recipe(
        names={"audio_token": "[AUDIO]", "begin": "[BEGIN_AUDIO]"},
        marks={"audio": "[BEGIN_AUDIO][AUDIO]"},
        config={
            "audio_config": {**SPEECH, "num_mel_bins": 16},
            "hidden_size": HIDDEN,
        },
        sound={"feature_size": 16},
        language="llama",
        classes={"feature_extractor": "WhisperFeatureExtractor"},
    ),
    "mistral4": Recipe(
        names={
            "image_token": "[IMG]",
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
        },
        marks={"image": "[IMG]"},
        text={"num_key_value_heads": 4},
        vision={"image_size": 112},
        config={"spatial_merge_size": 2, "tie_word_embeddings": False},
        image=PIXTRAL,
        processor={"patch_size": 14, "spatial_merge_size": 2},
        language="mistral4",
        encoder="pixtral",
        classes={
            "image_processor": "PixtralImageProcessor",
            "processor": "PixtralProcessor",
            "model": "Mistral3ForConditionalGeneration",
            "config": "mistral3",
        },
    ),
    "emu3": Recipe(
        names={
            "image_token": "<image>",
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
            "eol_token": "<|extra_200|>",
        },
        marks={"image": "<image>"},
        config={
            "vq_config": {
                "codebook_size": 16,
                "embed_dim": 4,
                "latent_channels": 4,
                "base_channels": 32,
                "channel_multiplier": [1, 1, 1, 1],
                "num_res_blocks": 1,
                "attn_resolutions": [],
                "hidden_size": 32,
                "temporal_downsample_factor": 1,
            },
            "vocabulary_map": {
                "<image>": token("<image>"),
                "<|extra_200|>": token("<|extra_200|>"),
                **{f"<|visual token {i:06d}|>": 100 + i for i in range(16)},
            },
        },
        image={"min_pixels": 256, "max_pixels": 1024, "spatial_factor": 8},
    ),
    "mllama": Recipe(
        names={"image_token": "<|image|>"},
        marks={"image": "<|image|>"},
        text={"cross_attention_layers": [1]},
        vision={
            "attention_heads": 2,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0, 1],
            "vision_output_dim": 192,
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        config={"image_token_index": token("<|image|>")},
        image={"size": SQUARE, "max_image_tiles": 2},
    ),
    "blip-2": Recipe(
        names={},
        others=("<image>",),
        marks={},
        text={"ffn_dim": 128, "word_embed_proj_dim": HIDDEN},
        config={
            "image_token_index": token("<image>"),
            "num_query_tokens": 8,
            "qformer_config": {
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 128,
                "encoder_hidden_size": 64,
            },
            "use_decoder_only_language_model": True,
        },
        image={"size": SQUARE},
        processor={"num_query_tokens": 8},
    ),
    "fast_vlm": Recipe(
        names={"image_token": "<image>"},
        marks={"image": "<image>"},
        vision={
            "architecture": "fastvit_t8",
            "hidden_size": 768,
            "do_pooling": False,
            "model_args": {"inference_mode": False},
        },
        config={"image_seq_length": 4, "tie_word_embeddings": False},
        image={"size": {"height": 64, "width": 64}, "crop_size": {"height": 64, "width": 64}},
        processor={"patch_size": 32, "vision_feature_select_strategy": "full"},
        classes={"processor": "LlavaProcessor", "image_processor": "CLIPImageProcessor"},
        language="qwen2",
    ),
    "perception_lm": Recipe(
        names={"image_token": "<|image|>", "video_token": "<|video|>"},
        marks={"image": "<|image|>", "video": "<|video|>"},
        vision={
            "architecture": "vit_pe_core_tiny_patch16_384",
            "hidden_size": 192,
            "do_pooling": False,
            "model_args": {
                "embed_dim": 192,
                "img_size": [64, 64],
                "depth": 2,
                "global_pool": "",
                "use_post_transformer_norm": False,
            },
        },
        config={"projector_pooling_ratio": 2, "tie_word_embeddings": False},
        image={"tile_size": 64, "max_num_tiles": 2, "vision_input_type": "thumb+tile"},
        video={"size": {"height": 64, "width": 64}},
        processor={"patch_size": 16, "pooling_ratio": 2},
        language="llama",
    ),
    "glmga": Recipe(
        names=GLM,
        marks=GLM_MARKS,
        text={"rope_parameters": rope(8, 4, 4)},
        vision={"patch_size": 14, "out_hidden_size": HIDDEN, "intermediate_size": 128},
        config={"tie_word_embeddings": False},
        image={"patch_size": 14, "size": pixels(14)},
        video={"patch_size": 14, "size": pixels(14, frames=4)},
        classes={"processor": "Glm46VProcessor"},
    ),
    "pp_chart2table": Recipe(
        names={"image_token": "<imgpad>", "open": "<img>", "close": "</img>"},
        marks={"image": "<img>" + "<imgpad>" * 256 + "</img>"},
        vision={
            **SAM,
            "image_size": 1024,
            "patch_size": 16,
            "window_size": 14,
            "global_attn_indexes": [],
        },
        config={"image_seq_length": 256, "tie_word_embeddings": False},
        image={"size": {"height": 1024, "width": 1024}},
    ),
    "instructblip": Recipe(
        names={},
        others=("<image>",),
        marks={},
        text={"ffn_dim": 128, "word_embed_proj_dim": HIDDEN},
        config={
            "image_token_index": token("<image>"),
            "num_query_tokens": 8,
            "qformer_config": QFORMER,
        },
        image={"size": SQUARE},
        processor={"num_query_tokens": 8},
    ),
    "instructblipvideo": Recipe(
        names={},
        others=("<video>",),
        marks={},
        text={"ffn_dim": 128, "word_embed_proj_dim": HIDDEN},
        config={
            "video_token_index": token("<video>"),
            "num_query_tokens": 8,
            "qformer_config": QFORMER,
        },
        video={"size": SQUARE},
        processor={"num_query_tokens": 8},
    ),
}
