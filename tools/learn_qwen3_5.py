"""Does a model with recurrent layers learn, by RL? A tiny Qwen3.5 counts handwritten digits.

    python tools/learn_qwen3_5.py --out runs/qwen3_5

builds a real Qwen3.5 of random weights (three gated delta nets to a layer of attention), trains it
supervised until it counts READY of the validation canvases right, then by the quickstart's GRPO
with the rewards as scored and, as a control, shuffled within groups. Prints held-out accuracy
before and after. What is already there is not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from make_tiny_model import CHAT_TEMPLATE, ROLES, VOCAB_SIZE, build_tokenizer, first_ready

CONFIGS = Path(__file__).parent.parent / "configs"
READY = {"digit_count": 0.4}
HIDDEN = 128
PATCH = 16
PIXELS = {"shortest_edge": 64 * 64, "longest_edge": 160 * 160}
NORMAL = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": PATCH, "size": PIXELS}


def build(seed: int) -> tuple[Any, Any]:
    """An untrained model in float32 and its processor, the same ones for the same seed."""
    import torch
    import transformers as tf

    tokens = build_tokenizer()
    ids = {f"{role}_id": tokens.convert_tokens_to_ids(token) for role, token in ROLES.items()}
    config = tf.Qwen3_5Config(
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": HIDDEN,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "initializer_range": 0.06,
            "bos_token_id": tokens.pad_token_id,
            "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
                "partial_rotary_factor": 0.25,
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 3,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": 100,
            "initializer_range": 0.06,
        },
        **ids,
    )
    torch.manual_seed(seed)
    model = tf.Qwen3_5ForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    processor = tf.Qwen3VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(**NORMAL),
        video_processor=tf.Qwen3VLVideoProcessor(**NORMAL),
        tokenizer=tokens,
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def start(out: Path, seed: int) -> Path:
    """The first checkpoint of the supervised phase that is READY."""
    from mmrl import api
    from mmrl.config import load_config
    from mmrl.runlog.journal import Journal
    from mmrl.train import checkpoint

    untrained, run = out / "untrained", out / "sft"
    if not (run / "result.json").is_file():
        model, processor = build(seed)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
        for part in (model, processor):
            part.save_pretrained(untrained)
        count = CONFIGS.parent / "data" / "digits" / "digit_count"
        source = (
            f"data={{task: digit_count, path: {count}/train.jsonl, eval_path: "
            f"{count}/validation.jsonl, recipe: {{name: digits, out: {count.parent}}}}}"
        )
        overrides = [f"model.path={untrained}", f"run={run}", source]
        api.train(load_config(CONFIGS / "tiny_sft.yaml", overrides), overwrite=True)
    step = first_ready(Journal(run / "metrics.jsonl").rows(), READY)
    if step is None:
        raise SystemExit(f"no checkpoint of {run} reached {READY}: raise trainer.steps")
    print(f"supervised step {step} is the first with {READY}", flush=True)
    return checkpoint.at(run, step).path


def learn(model: Path, out: Path, control: str, seed: int) -> dict[str, float]:
    """One GRPO run's held-out accuracy before and after."""
    from mmrl import api
    from mmrl.config import load_config

    run = out / f"grpo-{control}-{seed}"
    if not (run / "result.json").is_file():
        overrides = [
            f"model.path={model}",
            f"run={run}",
            f"seed={seed}",
            f"trainer.reward_control={control}",
        ]
        api.train(load_config(CONFIGS / "quickstart.yaml", overrides), overwrite=True)
    found: dict[str, float] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/qwen3_5"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    model = start(args.out, seed=0)
    for control, seeds in (("none", args.seeds), ("shuffle", args.seeds[:1])):
        for seed in seeds:
            found = learn(model, args.out, control, seed)
            print(
                f"rewards {'as scored' if control == 'none' else 'shuffled'}, seed {seed}: "
                f"{found['before']:.1%} -> {found['after']:.1%} in {found['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
