"""What no rule gives of tiny models of types that came with transformers 5.21 to 5.24."""

from __future__ import annotations

from dataclasses import replace

from tests.families.other_recipes import (
    MINICPM,
    MIXED,
    RECIPES,
    SPEECH,
    SQUARE,
    Recipe,
    Settings,
    qwen,
)
from tests.families.tiny import HIDDEN, VOCABULARY, pixels, rope

INDEXED: Settings = {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 64}
"""Layers that keep the best of the keys: fewer than a trial prompt has none of."""

INKLING: Settings = {
    **RECIPES["inkling_mm_model"].text,
    "unpadded_vocab_size": VOCABULARY,
    "log_scaling_n_floor": 64,
    "n_layers_per_attn_res_block": 1,
}
INKLING2 = Recipe(
    names={"image_token": "<|unused_200054|>"},
    marks={"image": "<|unused_200054|>"},
    text={key: value for key, value in INKLING.items() if key != "mlp_layer_types"},
    vision={"patch_size": 20, "posemb_grid_size": 4, "projection_hidden_dim": 64},
)

NEWER_RECIPES: dict[str, Recipe] = {
    "apertus1p5": Recipe(
        names={
            "image_token": "<|image|>",
            "audio_token": "<|audio|>",
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eol_token": "<|image row|>",
            "boa_token": "<|audio start|>",
            "eoa_token": "<|audio end|>",
        },
        marks={"image": "<|image|>", "audio": "<|audio|>"},
        text={"output_vocab_size": 576},
        vision={
            "codebook_size": 16,
            "embed_dim": 16,
            "latent_channels": 16,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
        },
        config={
            "image_token_offset": 580,
            "audio_token_offset": 596,
            "audio_config": {
                "num_filters": 4,
                "hidden_size": 16,
                "codebook_dim": 16,
                "codebook_size": 16,
            },
        },
        image={"size": {"min_pixels": 256, "max_pixels": 1024}, "spatial_factor": 2},
    ),
    "dots3_note": Recipe(
        names={
            "image_token": "<|imgpad|>",
            "video_token": "<|video_pad|>",
            "audio_token": "<|audio_comp_pad|>",
        },
        marks={"image": "<|imgpad|>", "video": "<|video_pad|>", "audio": "<|audio_comp_pad|>"},
        text={
            **INDEXED,
            "layer_types": ["indexed_attention", "sliding_attention", "indexed_attention"],
            "num_key_value_heads": 4,
            "head_dim": 32,
            "sliding_window": 24,
            "shared_experts_intermediate_size": 48,
            "swa_num_attention_heads": 2,
            "swa_num_key_value_heads": 2,
            "swa_q_lora_rank": 32,
            "swa_kv_lora_rank": 32,
            "swa_head_dim": 32,
            "swa_qk_nope_head_dim": 24,
            "swa_v_head_dim": 16,
        },
        vision={
            "pyramid_num_routed": [-1, 4],
            "moe_intermediate_size": 48,
            "adapter_in_dim": 64,
            "adapter_out_dim": HIDDEN,
        },
        config={
            "audio_config": {
                **{k: v for k, v in SPEECH.items() if k != "num_key_value_heads"},
                "feature_size": 16,
                "downsample_hidden_size": 16,
                "adapter_input_size": 64,
                "adapter_out_dim": HIDDEN,
            },
        },
        image={"size": pixels(14), "patch_size": 14, "temporal_patch_size": 1},
        video={"size": pixels(14, frames=4), "patch_size": 14, "temporal_patch_size": 1},
        sound={"feature_size": 16, "chunk_length": 2},
    ),
    "granite_docling": Recipe(
        names={"image_token": "<image>"},
        marks={"image": "<image>"},
        others=(
            "<fake_token_around_image>",
            "<global-img>",
            *(f"<row_{i}_col_{j}>" for i in (1, 2) for j in (1, 2)),
        ),
        vision={
            "deepstack_visual_indexes": [0],
            "image_size": 56,
            "patch_size": 14,
            "scale_factor": 2,
        },
        config={"tie_word_embeddings": False},
        image={"size": SQUARE, "max_patches": 2},
        processor={"image_seq_len": 4},
    ),
    "hy_v4_vl": qwen(
        16,
        text={
            **INDEXED,
            "num_key_value_heads": 4,
            "rope_parameters": rope(4, 2, 2),
            "indexer_types": ["full", "shared", "full"],
            "hc_mult": 2,
        },
        vision={"patch_size": 16, "max_image_size": 128},
        classes={},
    ),
    "inkling2": INKLING2,
    "inkling2_loop": replace(
        INKLING2,
        text={**INKLING2.text, "loop_layer_index_start": 1, "loop_layer_index_end": 2},
        encoder="inkling2_vision",
    ),
    "lfm3_vl": qwen(
        16,
        text={
            "layer_types": ["conv", "sliding_attention", "full_attention"],
            "sliding_window": 24,
        },
        vision={"patch_size": 16, "layer_types": ["conv", "full_attention"]},
        config={"projector_hidden_size": 64, "tie_word_embeddings": False},
        classes={
            "image_processor": "Qwen2VLImageProcessor",
            "video_processor": "Qwen3VLVideoProcessor",
        },
    ),
    "minicpm_ocr": replace(
        MINICPM,
        text=MIXED,
        config={**MINICPM.config, "tie_word_embeddings": False},
        image={**MINICPM.image, "downsample_mode": "4x"},
        classes={},
    ),
    "mistral_large4": replace(
        RECIPES["mistral4"],
        text={
            **INDEXED,
            "num_key_value_heads": 4,
            "indexer_types": ["full", "shared", "full"],
            "kv_source_layers": [0, 0, 2],
            "no_rope_layers": [1, 1, 0],
        },
        language="",
        classes={"image_processor": "PixtralImageProcessor", "processor": "PixtralProcessor"},
    ),
    "nemo_speechlm": Recipe(
        names={"audio_token": "<|audio|>"},
        marks={"audio": "<|audio|>"},
        text=RECIPES["nemotron_h_omni"].text,
        config={
            "audio_config": {
                "asr_config": {**SPEECH, "num_mel_bins": 16},
                "diarization_config": {
                    "audio_config": {**SPEECH, "num_mel_bins": 16},
                    "head_config": {"hidden_size": 32, "audio_hidden_size": 64},
                },
            },
            "word_timestamp_config": {
                **SPEECH,
                "vocab_size": 32,
                "blank_token_id": 31,
            },
        },
        sound={"feature_size": 16},
    ),
    "omniasr": Recipe(
        names={"audio_token": "<extra_id_1>"},
        marks={"audio": "<extra_id_1>"},
        config={
            "audio_config": {
                **{k: v for k, v in SPEECH.items() if k != "num_key_value_heads"},
                "conv_dim": [16] * 7,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
            },
        },
        language="llama",
    ),
}
"""`other_types` makes tiny models of them."""
