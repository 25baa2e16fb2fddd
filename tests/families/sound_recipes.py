"""What no rule gives of tiny models of types that hear: `other_types` makes them of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.families.other_recipes import RECIPES, SOUND, SOUND_MARKS, SPEECH, SQUARE, Recipe
from tests.families.tiny import HIDDEN

CODEC: dict[str, Any] = {
    "num_filters": 4,
    "depths": [1] * 7,
    "layer_scale_init_value": 0.5,
}
"""Sizes of a sound's codec."""

GRANITE = RECIPES["granite_speech"]

SOUND_RECIPES: dict[str, Recipe] = {
    "granite_speech_plus": replace(
        GRANITE,
        config={
            **GRANITE.config,
            "encoder_config": {
                **GRANITE.config["encoder_config"],
                "cat_hidden_layers": [0],
            },
            "projector_config": {
                **GRANITE.config["projector_config"],
                "encoder_hidden_size": 128,
            },
        },
        classes={"processor": "GraniteSpeechProcessor"},
    ),
    "fun_asr_nano": Recipe(
        names={**SOUND, "audio_token": "<|object_ref_start|>"},
        marks={"audio": "<|object_ref_start|>"},
        config={
            "audio_config": {
                "num_mel_bins": 16,
                "hidden_size": 64,
                "num_attention_heads": 2,
                "intermediate_size": 128,
                "num_hidden_layers": 3,
                "num_timestamp_prediction_layers": 1,
            },
            "adaptor_config": {
                "hidden_size": HIDDEN,
                "num_attention_heads": 2,
                "intermediate_size": HIDDEN // 4,
                "num_hidden_layers": 1,
                "projector_hidden_size": 64,
            },
            "tie_word_embeddings": False,
        },
        sound={"feature_size": 16},
        language="qwen3",
    ),
    "moss_transcribe_diarize": Recipe(
        names=SOUND,
        marks=SOUND_MARKS,
        config={
            "audio_config": {**SPEECH, "num_mel_bins": 16},
            "tie_word_embeddings": False,
        },
        sound={"feature_size": 16},
        language="qwen3",
    ),
    "vibevoice_asr": Recipe(
        names={
            "audio_token": "<|box_start|>",
            "audio_bos_token": "<|object_ref_start|>",
            "audio_eos_token": "<|object_ref_end|>",
        },
        marks={"audio": "<|object_ref_start|><|box_start|><|object_ref_end|> <|AUDIO_DURATION|> s"},
        config={
            "acoustic_tokenizer_encoder_config": {**CODEC, "hidden_size": 16},
            "semantic_tokenizer_encoder_config": {**CODEC, "hidden_size": 32},
        },
        language="qwen2",
    ),
    "phi4_multimodal": Recipe(
        names={"image_token": "<|image|>", "audio_token": "<|audio|>"},
        marks={"image": "<|image|>", "audio": "<|audio|>"},
        vision={"crop_size": 56, "image_size": 56},
        config={
            "audio_config": {
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_blocks": 2,
                "num_attention_heads": 2,
                "ext_pw_out_channel": 64,
                "depthwise_separable_out_channel": 64,
                "input_size": 16,
                "nemo_conv_channels": 64,
                "audio_token_id": {"token": "<|audio|>"},
            },
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 16,
                "long_factor": [2.0] * 16,
                "partial_rotary_factor": 1.0,
            },
            "original_max_position_embeddings": 4096,
        },
        image={"size": SQUARE, "dynamic_hd": 4},
        sound={"feature_size": 16},
    ),
    "gemma3n": Recipe(
        names={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "audio_token": "<audio_soft_token>",
            "boa_token": "<start_of_audio>",
            "eoa_token": "<end_of_audio>",
        },
        marks={"image": "<image_soft_token>", "audio": "<audio_soft_token>"},
        first="<bos>",
        text={
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
            "sliding_window": 24,
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": 640,
            "hidden_size_per_layer_input": 16,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.95] * 2 + [0.0] * 4,
        },
        vision={
            "architecture": "test_efficientnet",
            "hidden_size": 256,
            "vocab_size": 8,
            "vocab_offset": 640,
        },
        config={
            "vision_soft_tokens_per_image": 4,
            "audio_soft_tokens_per_image": 24,
            "audio_config": {
                "vocab_size": 8,
                "vocab_offset": 648,
                "input_feat_size": 32,
                "hidden_size": 64,
                "conf_num_attention_heads": 2,
                "conf_num_hidden_layers": 1,
                "sscp_conv_channel_size": [8, 4],
            },
        },
        image={"size": {"height": 64, "width": 64}},
        sound={"feature_size": 32},
        processor={"image_seq_length": 4, "audio_seq_length": 24},
    ),
}
