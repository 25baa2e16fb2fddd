"""What no rule gives of tiny models whose pictures do not stand among the words of a chat.

They go to an encoder in front of a decoder, or to cross-attention, or to places counted by hand.
"""

from __future__ import annotations

from typing import Any

from tests.families.other_recipes import SQUARE, Recipe, token
from tests.families.tiny import HIDDEN, VOCABULARY

ENDS = {
    "pad_token_id": token("<pad>"),
    "bos_token_id": token("<bos>"),
    "eos_token_id": token("<|im_end|>"),
    "decoder_start_token_id": token("<bos>"),
}
"""Ids of decoders that a configuration lists."""
BART = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 512,
    "dropout": 0.0,
    **ENDS,
}
GEMMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 24,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "pad_token_id": token("<pad>"),
    "bos_token_id": token("<bos>"),
    "eos_token_id": token("<|im_end|>"),
}
KOSMOS = {
    "vocab_size": VOCABULARY,
    "embed_dim": HIDDEN,
    "layers": 2,
    "ffn_dim": 128,
    "attention_heads": 4,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "pad_token_id": token("<pad>"),
    "bos_token_id": token("<bos>"),
    "eos_token_id": token("<|im_end|>"),
}

OLDER_RECIPES: dict[str, Recipe] = {
    "florence2": Recipe(
        names={"image_token": "<image>"},
        marks={},
        text=BART,
        vision={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [32, 64],
            "num_heads": [2, 4],
            "num_groups": [2, 4],
            "window_size": 4,
            "projection_dim": HIDDEN,
            "drop_path_rate": 0.0,
        },
        config={"tie_word_embeddings": True},
        image={
            "size": {"height": 32, "width": 32},
            "do_center_crop": False,
            "image_seq_length": 17,
        },
    ),
    "t5gemma2": Recipe(
        names={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        marks={"image": "<start_of_image>"},
        config={
            "encoder": {
                "text_config": {"model_type": "t5gemma2_text", **GEMMA},
                "vision_config": {
                    "model_type": "siglip_vision_model",
                    "hidden_size": 64,
                    "image_size": 56,
                    "intermediate_size": 128,
                    "num_attention_heads": 2,
                    "num_hidden_layers": 2,
                    "patch_size": 14,
                    "vision_use_head": False,
                },
                "mm_tokens_per_image": 4,
                "boi_token_index": token("<start_of_image>"),
                "eoi_token_index": token("<end_of_image>"),
            },
            "decoder": GEMMA,
            "image_token_index": token("<image_soft_token>"),
        },
        image={"size": SQUARE, "image_seq_length": 4},
        processor={"image_seq_length": 4},
    ),
    "pix2struct": Recipe(
        names={},
        marks={},
        text={
            "vocab_size": VOCABULARY,
            "d_kv": 32,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
            **ENDS,
        },
        vision={
            "hidden_size": HIDDEN,
            "d_kv": 32,
            "d_ff": 128,
            "patch_embed_hidden_size": 768,
            "seq_len": 64,
        },
        image={"max_patches": 64},
    ),
    "pp_formulanet": Recipe(
        names={},
        marks={},
        text=BART,
        vision={
            "output_channels": 16,
            "image_size": 128,
            "patch_size": 16,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 64,
            "post_conv_in_channels": 16,
            "post_conv_mid_channels": 16,
            "post_conv_out_channels": 32,
            "decoder_hidden_size": HIDDEN,
            "initializer_range": 0.02,  # the class has 1e-10: of random weights nothing comes
        },
        image={"size": {"height": 128, "width": 128}},
    ),
    "vision-encoder-decoder": Recipe(
        names={},
        marks={},
        config={
            "encoder": {
                "model_type": "donut-swin",
                "image_size": [32, 32],
                "patch_size": 4,
                "embed_dim": 32,
                "depths": [1, 1],
                "num_heads": [2, 2],
                "num_attention_heads": [2, 2],
                "window_size": 4,
                "hidden_size": 64,
                "drop_path_rate": 0.0,
            },
            "decoder": {
                "model_type": "mbart",
                **BART,
                "is_decoder": True,
                "is_encoder_decoder": False,
                "add_cross_attention": True,
            },
            **ENDS,
        },
        image={"size": {"height": 32, "width": 32}},
        classes={"processor": "DonutProcessor", "image_processor": "DonutImageProcessor"},
    ),
    "git": Recipe(
        names={},
        marks={},
        config={
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        vision={},
        image={"size": SQUARE, "crop_size": SQUARE},
    ),
    "kosmos-2": Recipe(
        names={"unk_token": "<unk>"},
        marks={},
        text=KOSMOS,
        image={"size": SQUARE, "crop_size": SQUARE},
        processor={"num_patch_index_tokens": 8},
        classes={"processor": "Kosmos2Processor"},
    ),
    "kosmos-2.5": Recipe(
        names={"image_token": "<s>", "boi_token": "<image>", "eoi_token": "</image>"},
        marks={},
        text=KOSMOS,
        vision={"head_dim": 32, "patch_embed_hidden_size": 768},
        config={"latent_query_num": 16},
        processor={"num_image_tokens": 16},
        classes={"processor": "Kosmos2_5Processor"},
    ),
    "idefics": Recipe(
        names={"image_token": "<image>", "fake": "<fake_token_around_image>"},
        marks={},
        config={
            "vision_config": {
                "embed_dim": 64,
                "image_size": 56,
                "intermediate_size": 128,
                "patch_size": 14,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            },
            "cross_layer_interval": 1,
            "alpha_initializer": "ones",
            "additional_vocab_size": 0,
            "vocab_size": VOCABULARY,
            "use_resampler": False,
        },
        image={"image_size": 56},
    ),
    "shieldgemma2": Recipe(
        names={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        marks={"image": "<start_of_image>"},
        text={**GEMMA},
        config={"mm_tokens_per_image": 4},
        image={"size": SQUARE, "image_seq_length": 4},
        processor={"image_seq_length": 4},
        language="gemma3_text",
        encoder="siglip_vision_model",
        classes={"processor": "ShieldGemma2Processor"},
    ),
}
