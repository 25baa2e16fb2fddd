"""Make the starting checkpoints of configs/modalities: real classes, up to 1.5 M parameters.

    python tools/make_modality_models.py OUT [--kinds audio video ...]
    python tools/make_modality_models.py mmrl/assets --assets

builds each kind's model and stops a short supervised phase on the kind's training split as soon as
validation says that the model errs less often than a guess, but still often. Models that only see
start from the shipped one (tools/make_tiny_model.py), those that hear from random weights;
`--assets` writes those as they are shipped, untrained, in bfloat16.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import ignore_patterns
from typing import Any

from make_tiny_model import (
    CHAT_TEMPLATE,
    MARKUP_TOKENS,
    ROLES,
    SPECIAL_TOKENS,
    build_config,
    build_processor,
    build_tokenizer,
)

from mmrl.data_recipes.modalities import MAZE_SIDE

CONFIGS = Path(__file__).parent.parent / "configs" / "modalities"

SHIPPED = Path(__file__).parent.parent / "mmrl" / "assets" / "tiny_qwen2_5_vl"
EMBEDDINGS = ("model.language_model.embed_tokens.weight", "lm_head.weight")  # tied

CORPUS = (
    "You are a helpful assistant. system\n user\n assistant\n",
    "Write the final answer between <answer> </answer> tags.",
    "The answer is the letter of the right option. (A) the first (B) the second (C) both the same",
    "The answer is one of these choices, word for word: one\ntwo\nthree\nfour",
    "Which picture shows more digits?",
    "When does this happen in the video: \"a digit is shown\"? Write it as 'start to end' in "
    "seconds from the beginning of the video, such as '1.5 to 4'.",
    "Which are more, beeps or flashes? How many beeps are heard?",
    "Instruction: press the red green blue button\nWhat is the next action? The answer is one "
    'action and its argument, for example {"action": "click", "point": [5.0, 5.0]}; '
    '{"action": "scroll", "direction": "down"}; {"action": "type", "text": "..."}. Actions: '
    "click (point), long_press (point), double_click (point), right_click (point), "
    "move_to (point), scroll (direction), type (text), open_app (text), select (text), "
    "hotkey (text), navigate_back, navigate_home, enter, tab, wait, close, complete, impossible. "
    "Directions are up, down, left and right, and name where the view moves: down shows what is "
    "below.",
    'Detect every object of these categories in the picture: "digit". Write the boxes as a JSON '
    'list, one object each: [{"Position": [x1, y1, x2, y2], "Confidence": 0.9}, {"Position": '
    "If there are none, write No Objects.",
    "MAZE: The answer is the moves from origin to target, as tokens and nothing else.",
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
WAYS = ("up", "down", "left", "right")
WALLS = [
    f"<|{'_'.join(way for bit, way in enumerate(WAYS) if walls >> bit & 1) or 'no'}_wall|>"
    for walls in range(1 << len(WAYS))
]
MAZE_TOKENS = (
    *(f"<|{row}-{column}|>" for row in range(MAZE_SIDE) for column in range(MAZE_SIDE)),
    *WALLS,
    *(f"<|{word}|>" for word in ("blank", "origin", "target", *WAYS)),
)
CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 1024
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


def tokenizer(
    specials: Sequence[str],
    roles: Mapping[str, str],
    template: str,
    corpus: Sequence[str] = CORPUS,
) -> Any:
    """Whole words for what the tasks ask, and a token for each word of a maze."""
    markup = (*MARKUP_TOKENS, *MAZE_TOKENS)
    return build_tokenizer(specials, roles, corpus, template, markup, VOCAB_SIZE)


def qwen2_5_vl(corpus: Sequence[str] = CORPUS) -> Built:
    """Sees: the shipped model, which knows digits and boxes, with the words of a corpus.

    Tokens of both vocabularies keep their embedding, the others start at random.
    """
    import torch
    import transformers as tf

    seen = tf.Qwen2_5_VLForConditionalGeneration.from_pretrained(SHIPPED, dtype=torch.float32)
    known = tf.AutoTokenizer.from_pretrained(SHIPPED).get_vocab()
    tokens = tokenizer(SPECIAL_TOKENS, ROLES, CHAT_TEMPLATE, corpus)
    config = build_config(tokens)
    config.text_config.vocab_size = VOCAB_SIZE
    model = tf.Qwen2_5_VLForConditionalGeneration(config)
    rows = model.get_input_embeddings().weight.detach().clone()
    for token, place in tokens.get_vocab().items():
        if token in known:
            rows[place] = seen.get_input_embeddings().weight[known[token]]
    model.load_state_dict({**seen.state_dict(), **dict.fromkeys(EMBEDDINGS, rows)})
    return model, build_processor(tokens)


def qwen2_audio() -> Built:
    """Hears."""
    import transformers as tf

    roles = {role: token for role, token in OMNI_ROLES.items() if role.startswith("audio")}
    template = chat({"audio": "<|audio_bos|><|AUDIO|><|audio_eos|>"})
    tokens = tokenizer((*CHAT_TOKENS, *roles.values()), roles, template)
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
    tokens = tokenizer((*CHAT_TOKENS, *OMNI_ROLES.values()), OMNI_ROLES, template)
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


ASSETS = {"audio": "tiny_qwen2_audio", "audio_video": "tiny_qwen2_5_omni"}
MODELS: dict[str, tuple[Callable[[], Built], float]] = {
    "two_images": (qwen2_5_vl, 0.5),
    "video": (qwen2_5_vl, 0.6),
    "audio": (qwen2_audio, 0.6),
    "audio_video": (qwen2_5_omni, 0.72),
    "screenshot": (qwen2_5_vl, 0.35),
    "boxes": (qwen2_5_vl, 0.15),
    "maze": (qwen2_5_vl, 0.35),
}
"""A kind's model, and the validation metric at which its supervised phase stops."""
STEPS_BETWEEN = 10  # from one validation to the next
MOST_STEPS = 400


def text(tokens: Any) -> dict[str, Any]:
    """The language part, with this tokenizer's ids."""
    ids = {f"{name}_token_id": getattr(tokens, f"{name}_token_id") for name in ("eos", "pad")}
    return {**TEXT, **ids, "bos_token_id": tokens.pad_token_id, "tie_word_embeddings": False}


def ears() -> Any:
    """Spectrograms, every sound padded to the same few seconds."""
    import transformers as tf

    return tf.WhisperFeatureExtractor(feature_size=MEL_BINS, chunk_length=CHUNK_SECONDS)


def build(made: Callable[[], Built], seed: int) -> Built:
    """An untrained model in float32 and its processor, the same ones for the same seed."""
    import torch

    torch.manual_seed(seed)
    model, processor = made()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


def supervised(kind: str, start: Path, run: Path, steps: int) -> list[str]:
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
        f"trainer={{steps: {steps}, prompts_per_step: 16, write_rollouts_every: 50, "
        "eval_limit: 100}",
    ]


def make(kind: str, out: Path, seed: int = 0) -> Path:
    """Build a kind's starting checkpoint in OUT/KIND, or find the one already there.

    A phase that was cut off goes on where it stopped.
    """
    folder, untrained, run = out / kind, out / "untrained" / kind, out / "sft" / kind
    if (folder / "config.json").is_file():
        return folder
    if not untrained.is_dir():
        model, processor = build(MODELS[kind][0], seed)
        print(f"{kind}: {sum(p.numel() for p in model.parameters()):,} parameters")
        for part in (model, processor):
            part.save_pretrained(untrained)
    shutil.copytree(fine_tune(kind, untrained, run), folder, ignore=ignore_patterns("trainer"))
    return folder


def write_asset(kind: str, folder: Path, seed: int) -> None:
    """Write a kind's untrained model in bfloat16, with its processor."""
    import torch

    model, processor = build(MODELS[kind][0], seed)
    for part in (model.to(torch.bfloat16), processor):
        part.save_pretrained(folder)


def fine_tune(kind: str, start: Path, run: Path) -> Path:
    """Train until the validation metric is as good as a start should be; its checkpoint."""
    from mmrl import api
    from mmrl.config import load_config
    from mmrl.train import checkpoint

    metric, found = 0.0, checkpoint.latest(run)
    while metric < MODELS[kind][1] and (found is None or found.step < MOST_STEPS):
        steps = (found.step if found else 0) + STEPS_BETWEEN
        config = load_config(CONFIGS / f"{kind}.yaml", supervised(kind, start, run, steps))
        metric = api.train(config, resume=found is not None, overwrite=True)["after"]
        found = checkpoint.latest(run)
    assert found is not None, "a phase ends with a checkpoint"
    print(f"{kind}: {found.step} supervised steps, {metric:.1%} on validation media")
    return found.path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--assets", action="store_true", help="the untrained models that are shipped"
    )
    args = parser.parse_args()
    if args.assets:
        for kind, name in ASSETS.items():
            write_asset(kind, args.out / name, args.seed)
        return
    for kind in args.kinds:
        make(kind, args.out, args.seed)


if __name__ == "__main__":
    main()
