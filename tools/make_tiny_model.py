"""Make the quickstart's starting checkpoint: a real Qwen2.5-VL of 1.4 M parameters.

    python tools/make_tiny_model.py OUT

builds the model from random weights with its tokenizer and processor, runs a short supervised
phase (configs/tiny_sft.yaml, the project's own) and takes the first of its checkpoints that has
reached READY: a model that answers in the right form and still errs often. Rounding, which differs
between machines, may move that checkpoint; what it can do stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig
    from transformers import Qwen2_5_VLForConditionalGeneration as Model
    from transformers import Qwen2_5_VLProcessor as Processor

SFT_CONFIG = Path(__file__).parent.parent / "configs" / "tiny_sft.yaml"
READY = {"digit_count": 0.4, "digit_rows": 0.4, "digit_box": 0.25}
"""Validation accuracy by task, on canvases made of training scans, that a start has at least."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ROLES = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
MARKUP_TOKENS = ("<think>", "</think>", "<answer>", "</answer>")
VOCAB_SIZE = 512
PATCH = 14
MIN_PIXELS = 56 * 56
MAX_PIXELS = 140 * 140  # 25 image tokens: what a CPU can train on by the thousand

# How Qwen2.5 cuts text before byte-pair merging: every digit is a piece of its own.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = (
    "You are a helpful assistant.",
    "system\n user\n assistant\n",
    "How many handwritten digits are in the picture?",
    "Where is the handwritten digit? Give its box as [x1, y1, x2, y2].",
    "Write the final answer between <answer> </answer> tags.",
    "Count the digits. Locate the digit. Reply in the form of the example.",
    "Count the digits in each of the 3 rows, then in all. First reason between tags.",
    "Which answer is correct? Look at the image and the video, think step by step.",
)
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny(seed: int) -> tuple[Model, Processor]:
    """Return an untrained model in float32 and its processor, the same ones for the same seed."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    processor = build_processor(build_tokenizer())
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(processor.tokenizer))
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


def build_tokenizer(
    specials: Sequence[str] = SPECIAL_TOKENS,
    roles: Mapping[str, str] = ROLES,
    corpus: Sequence[str] = CORPUS,
    chat_template: str = CHAT_TEMPLATE,
    markup: Sequence[str] = MARKUP_TOKENS,
    vocab_size: int = VOCAB_SIZE,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on a few sentences.

    `roles` become its attributes; `markup` is text that is one token each.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(markup),
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in markup])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=dict(roles),
        model_max_length=4096,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Processor:
    """Return the Qwen2.5-VL processor with budgets that fit the tiny model."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    budget = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=budget, patch_size=PATCH),
        video_processor=Qwen2VLVideoProcessor(size=budget, patch_size=PATCH),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Return the shape of the tiny model; ids come from `tokenizer`."""
    from transformers import Qwen2_5_VLConfig

    def ids(token: str) -> int:
        found = tokenizer.convert_tokens_to_ids(token)
        assert isinstance(found, int)
        return found

    hidden = 128
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": hidden,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.06,
            "tie_word_embeddings": True,
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 3,
            "out_hidden_size": hidden,
            "patch_size": PATCH,
            "window_size": 56,
            "fullatt_block_indexes": [1, 2],
            "initializer_range": 0.06,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def fine_tune(start: Path, run: Path) -> Path:
    """Run the supervised phase from `start`; returns its first checkpoint that is READY."""
    from mmrl import api
    from mmrl.config import load_config
    from mmrl.runlog.journal import Journal
    from mmrl.train import checkpoint

    overrides = [f"model.path={start}", f"run={run}"]
    api.train(load_config(SFT_CONFIG, overrides), overwrite=True)
    step = first_ready(Journal(run / "metrics.jsonl").rows(), READY)
    if step is None:
        raise SystemExit(f"no checkpoint of {run} reached {READY}: raise trainer.steps")
    print(f"step {step} is the first with {READY}")
    return checkpoint.at(run, step).path


def first_ready(rows: Iterable[Mapping[str, float]], floors: Mapping[str, float]) -> int | None:
    """The first evaluated step at which every task has reached its floor."""
    evaluated = (row for row in rows if all(f"eval/{task}" in row for task in floors))
    ready = (r for r in evaluated if all(r[f"eval/{task}"] >= f for task, f in floors.items()))
    return next((int(row["step"]) for row in ready), None)


def save_half(folder: Path, out: Path) -> None:
    """Save a checkpoint's model in bfloat16, half the size, with its processor."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(out)
    AutoProcessor.from_pretrained(folder).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="folder for the run")
    parser.add_argument("--untrained", action="store_true", help="stop before the fine-tuning")
    args = parser.parse_args()
    model, processor = build_tiny(args.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    start = args.out if args.untrained else args.work / "untrained"
    model.save_pretrained(start)
    processor.save_pretrained(start)
    if not args.untrained:
        save_half(fine_tune(start, args.work / "sft"), args.out)


if __name__ == "__main__":
    main()
