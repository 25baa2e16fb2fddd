# %% [markdown]
# # A first model
#
# Train a vision-language model with a reward of your own on records that are made in memory,
# evaluate it, and ask the checkpoint about a picture. Cells begin with `# %%`: run the file as it
# is (about a minute on a CPU, pictures and weights go to `runs/first_model`), or open it as a
# notebook in an editor that knows such cells.
#
# The model is a tiny Qwen2.5-VL that comes with mmrl. For yours, change `MODEL` to its folder.

# %%
import argparse
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import mmrl
from mmrl.config import RunConfig
from mmrl.data_recipes.digits import count_canvas, split_scans
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.encoder import Encoder
from mmrl.types import MediaRef, Sample, Text

options = argparse.ArgumentParser(description="Train, evaluate and ask a first model.")
options.add_argument("--steps", type=int, default=20)
options.add_argument("--out", type=Path, default=Path("runs/first_model"))
chosen, _ = options.parse_known_args()  # in a notebook the arguments are its own

MODEL = "asset:tiny_qwen2_5_vl"
OUT = chosen.out.resolve()
QUESTION = (
    "<image>How many handwritten digits are in the picture? "
    "Write the final answer between <answer> </answer> tags."
)


# %% [markdown]
# ## A reward
#
# A function of prompts, completions and the records' columns, one number for each completion; None
# means that it does not judge one. It is called in other processes, so it must stand in a file that
# can be imported: the next cell writes one. Make it pay for what you want and for nothing
# else; here exactly one answer region counts, so that writing all numbers earns nothing.
# %%
def count_reward(
    prompts: Sequence[Any], completions: Sequence[str], count: Sequence[int], **columns: Any
) -> list[float | None]:
    """1 for exactly one answer region with the right number, else 0."""
    import re

    found = [re.findall(r"<answer>\s*(\d{1,3})\s*</answer>", text) for text in completions]
    return [float(f == [str(gold)]) for f, gold in zip(found, count, strict=True)]


# %%
(OUT / "data" / "images").mkdir(parents=True, exist_ok=True)
header = "from collections.abc import Sequence\nfrom typing import Any\n\n\n"
(OUT / "my_rewards.py").write_text(header + inspect.getsource(count_reward), encoding="utf-8")
sys.path.insert(0, str(OUT))

# %% [markdown]
# ## Records
#
# Any list of dictionaries: `prompt` (with `<image>` where the picture stands), `image`, an `id`,
# and the columns that the reward reads. A run reads them from a file, pictures lie beside it.

# %%
scans = split_scans(seed=0)


def records(split: str, number: int) -> list[dict[str, Any]]:
    """Canvases of handwritten digits with how many there are; none is in both splits."""
    rows = []
    for i in range(number):
        picture, fields = count_canvas(scans[split], np.random.default_rng([split == "test", i]))
        name = f"{split}-{i}"
        picture.save(OUT / "data" / "images" / f"{name}.png")
        row = {"id": name, "prompt": QUESTION, "image": f"images/{name}.png"}
        rows.append({**row, "count": fields["count"]})
    return rows


for split, number in (("train", 400), ("test", 60)):
    lines = (json.dumps(row) + "\n" for row in records(split, number))
    (OUT / "data" / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")

# %% [markdown]
# ## Training
#
# The same sections as in a YAML file; a mistyped key is an error that names its nearest neighbour.

# %%
config = RunConfig.model_validate(
    {
        "run": OUT / "run",
        "model": {"path": MODEL},
        "data": {
            "task": "custom",
            "path": OUT / "data" / "train.jsonl",
            "eval_path": OUT / "data" / "test.jsonl",
            "params": {"function": "my_rewards:count_reward"},
        },
        "algorithm": {"name": "grpo", "group_size": 8},
        "rollout": {"max_new_tokens": 8},
        "optimizer": {"learning_rate": 4e-4, "betas": (0.9, 0.95)},
        "trainer": {"steps": chosen.steps, "prompts_per_step": 16},
    }
)
result = mmrl.train(config, overwrite=True)
print(f"held-out reward {result['before']:.3f} -> {result['after']:.3f}")
print(f"what happened, step by step: {OUT / 'run' / 'report.html'}")

# %% [markdown]
# ## Evaluation
#
# The checkpoint on the held-out records, with its interval. `samples=8` would add pass@k.

# %%
checkpoint = OUT / "run" / "checkpoints" / f"step_{chosen.steps}"
evaluation = mmrl.evaluate(
    checkpoint,
    "custom",
    OUT / "data" / "test.jsonl",
    params={"function": "my_rewards:count_reward"},
    rollout={"max_new_tokens": 8},
)
print("\n".join(evaluation.lines()))

# %% [markdown]
# ## A question about a picture

# %%
policy = mmrl.load_policy(checkpoint)
encoder, engine = Encoder(policy.family), HFEngine(policy)


def ask(picture: Path, question: str) -> str:
    """The model's greedy answer to a question about a picture."""
    sample = Sample("ask", "ask", (MediaRef("image", picture), Text(question)), gold=None)
    greedy = Sampling(max_new_tokens=8, temperature=0.0)
    with torch.inference_mode():
        ((response,),) = engine.generate([encoder.prompt(sample)], [1], greedy, seed=0)
    return response.text


picture = OUT / "data" / "images" / "test-0.png"
print(f"{Image.open(picture).size} {ask(picture, QUESTION.removeprefix('<image>'))}")
encoder.close()

# %% [markdown]
# The checkpoint is a model folder of transformers: `AutoModelForImageTextToText` and
# `AutoProcessor` load it without mmrl.
