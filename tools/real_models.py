"""Multimodal models put together from pretrained parts, and the proof that they are those parts.

The classes are transformers' own. Only the projector between the parts starts from random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import real_weights
import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PATCH = 14
PICTURE = 84  # 6 x 6 patches, four of which make a token
CHUNK_SECONDS = 3
VISION = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-6,
}
WHISPER = {
    "d_model": 512,
    "encoder_layers": 6,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "num_mel_bins": 80,
}
VISION_ROLES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
AUDIO_ROLES = {
    "audio_token": "<|AUDIO|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
SPECIAL = 17  # SmolLM2's first ids: three that chats use, and marks of code repositories
RENAMED = 3  # the first of those marks: they stand for media here, so no embedding is added
EQUAL = 1e-4
"""Largest difference of outputs that are the same but for the order of float32 sums."""


def tokenizer(packages: Path, roles: dict[str, str], chat_template: str) -> Any:
    """SmolLM2's tokenizer, in which marks of code repositories have become media placeholders."""
    tokens, merges = real_weights.vocabulary(packages)
    tokens[RENAMED : RENAMED + len(roles)] = list(roles.values())
    ids = {token: i for i, token in enumerate(tokens)}
    bpe = Tokenizer(models.BPE(vocab=ids, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(tokens[:SPECIAL])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=roles,
        model_max_length=8192,
        chat_template=chat_template,
    )


def chat_template(kind: str, placeholder: str) -> str:
    """Turns as SmolLM2 knows them, with this text in the place of a medium."""
    return (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        f"{{% if c['type'] == '{kind}' %}}{placeholder}{{% else %}}{{{{ c['text'] }}}}{{% endif %}}"
        "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


@torch.no_grad()
def vision_model(packages: Path, seed: int = 0) -> tuple[Any, Any]:
    """InternVL from DINOv2 ViT-S/14 and SmolLM2-135M-Instruct, with its processor."""
    language = real_weights.language_model(packages)
    tokens = tokenizer(packages, VISION_ROLES, chat_template("image", "<IMG_CONTEXT>\n"))
    per_picture = (PICTURE // PATCH // 2) ** 2
    config = tf.InternVLConfig(
        text_config=language.config.to_dict(),
        vision_config={
            **VISION,
            "attention_bias": True,
            "image_size": [PICTURE, PICTURE],
            "patch_size": [PATCH, PATCH],
            "use_mean_pooling": False,  # DINOv2 ends with a norm
        },
        image_seq_length=per_picture,
        image_token_id=tokens.convert_tokens_to_ids(VISION_ROLES["context_image_token"]),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = tf.InternVLForConditionalGeneration(config)
    reference = dinov2(packages)
    tower = model.model.vision_tower
    tower.load_state_dict(real_weights.to_internvl(at_size(reference, PICTURE)))
    _take_language(model, language, tokens)
    processor = tf.InternVLProcessor(
        image_processor=tf.GotOcr2ImageProcessor(
            size={"height": PICTURE, "width": PICTURE}, max_patches=1, **IMAGENET
        ),
        video_processor=tf.InternVLVideoProcessor(
            size={"height": PICTURE, "width": PICTURE}, **IMAGENET
        ),
        tokenizer=tokens,
        image_seq_length=per_picture,
        chat_template=tokens.chat_template,
    )
    pictures = torch.randn(2, 3, PICTURE, PICTURE)
    same(
        "tower and DINOv2", tower(pictures).last_hidden_state, reference(pictures).last_hidden_state
    )
    same("DINOv2 and the graph it comes from", *_as_exported(reference, packages))
    _same_language(model, language, tokens)
    return model, processor


def dinov2(packages: Path) -> Any:
    """DINOv2 ViT-S/14 as transformers has it, places of 37 x 37 patches."""
    config = tf.Dinov2Config(
        **{k: v for k, v in VISION.items() if k != "intermediate_size"},
        mlp_ratio=4,
        image_size=37 * PATCH,
        use_mask_token=False,
    )
    model = tf.Dinov2Model(config).eval()
    model.load_state_dict(real_weights.dinov2(packages))
    return model


def at_size(model: Any, picture: int) -> dict[str, Tensor]:
    """Weights of a DINOv2 whose places are those that it makes for pictures of this size."""
    weights = dict(model.state_dict())
    side = picture // PATCH
    patches = torch.zeros(1, side * side + 1, model.config.hidden_size)
    weights["embeddings.position_embeddings"] = model.embeddings.interpolate_pos_encoding(
        patches, picture, picture
    ).detach()
    return weights


def _as_exported(model: Any, packages: Path) -> tuple[Tensor, Tensor]:
    """The last hidden states of a picture by the model and by the ONNX graph."""
    picture = torch.randn(1, 3, 224, 224)
    graph = real_weights.backbone_output(packages, picture.numpy())
    return model(picture).last_hidden_state, torch.tensor(graph)


@torch.no_grad()
def audio_model(packages: Path, seed: int = 0) -> tuple[Any, Any]:
    """Qwen2-Audio from Whisper base's encoder and SmolLM2-135M-Instruct, with its processor."""
    language = real_weights.language_model(packages)
    template = chat_template("audio", "<|audio_bos|><|AUDIO|><|audio_eos|>\n")
    tokens = tokenizer(packages, AUDIO_ROLES, template)
    places = 50 * CHUNK_SECONDS
    config = tf.Qwen2AudioConfig(
        text_config=language.config.to_dict(),
        audio_config={**WHISPER, "max_source_positions": places},
        audio_token_index=tokens.convert_tokens_to_ids(AUDIO_ROLES["audio_token"]),
    )
    torch.manual_seed(seed)
    model = tf.Qwen2AudioForConditionalGeneration(config)
    reference = whisper(packages)
    encoder = reference.model.encoder
    weights = dict(encoder.state_dict())
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:places]
    tower = model.model.audio_tower
    tower.load_state_dict(weights)
    _take_language(model, language, tokens)
    extractor = tf.WhisperFeatureExtractor(chunk_length=CHUNK_SECONDS)
    processor = tf.Qwen2AudioProcessor(
        feature_extractor=extractor, tokenizer=tokens, chat_template=template
    )
    _same_encoder(tower, encoder, places)
    _same_language(model, language, tokens)
    return model, processor


def whisper(packages: Path) -> Any:
    """Whisper base as transformers has it."""
    decoder = {k.replace("encoder", "decoder"): v for k, v in WHISPER.items() if "encoder" in k}
    config = tf.WhisperConfig(**WHISPER, **decoder, vocab_size=51_865)
    model = tf.WhisperForConditionalGeneration(config).eval()
    model.load_state_dict(real_weights.whisper(packages))
    return model


def _same_encoder(tower: Any, encoder: Any, places: int) -> None:
    """Check the tower, which hears a shorter chunk and pools pairs, against Whisper's encoder."""
    spectra = torch.randn(2, WHISPER["num_mel_bins"], 2 * places)
    with torch.no_grad():
        full = encoder.embed_positions.weight
        encoder.embed_positions = nn.Embedding.from_pretrained(full[:places])
        encoder.config.max_source_positions = encoder.max_source_positions = places
        norm, encoder.layer_norm = encoder.layer_norm, nn.Identity()
        hidden = encoder(spectra).last_hidden_state
        expected = norm((hidden[:, 0::2] + hidden[:, 1::2]) / 2)
    same("tower and Whisper's encoder", tower(spectra).last_hidden_state, expected)


def _take_language(model: Any, language: Any, tokens: Any) -> None:
    """Give a multimodal model the language model's weights and its ends of a turn."""
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())  # Qwen2-Audio ties it to nothing
    model.tie_weights()
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    model.eval()


@torch.no_grad()
def _same_language(model: Any, language: Any, tokens: Any) -> None:
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokens.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = tokens(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    same("text logits and SmolLM2's", model(input_ids=ids).logits, language(input_ids=ids).logits)
    answer = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
    said = tokens.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
    assert "Paris" in said, f"SmolLM2 said: {said}"


def same(what: str, one: Tensor, other: Tensor) -> None:
    """Stop unless two outputs are equal to the order of sums; says how far apart they are."""
    apart = float((one - other).abs().max() / other.abs().max())
    print(f"{what}: largest difference {apart:.1e} of the largest value")
    assert one.shape == other.shape and apart < EQUAL, f"{what} differ"


def count(model: nn.Module, fresh: Sequence[str]) -> str:
    """How many parameters there are, and how many of them are pretrained."""
    total = sum(p.numel() for p in model.parameters())
    new = sum(p.numel() for n, p in model.named_parameters() if n.startswith(tuple(fresh)))
    return f"{total / 1e6:.1f} M parameters, {(total - new) / 1e6:.1f} M of them pretrained"
