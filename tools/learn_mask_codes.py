"""Learn a mask tokenizer from the records of `mask_tokens`, for its parameter `decoder`.

python tools/learn_mask_codes.py data/alto/train.jsonl data/alto/codes.npz --stages 32 --codes 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mmrl.rewards.mask_codes import learn_codes
from mmrl.scoring.tasks import load_task


def main() -> None:
    """Read the masks, learn, write, and say how well the tokens draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("records", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stages", type=int, default=32, help="longest run of tokens")
    parser.add_argument("--codes", type=int, default=8, help="codes of each stage")
    parser.add_argument("--side", type=int, default=32, help="cells of a side of a mask")
    asked = parser.parse_args()
    task = load_task("mask_tokens")
    masks = []
    for record in task.records(asked.records):
        gold = task.ask(record).gold
        side = max(gold.size)
        square = np.zeros((side, side), dtype=bool)
        square[: gold.size[1], : gold.size[0]] = gold.mask()
        masks.append(square)
    learnt = learn_codes(masks, asked.stages, asked.codes, asked.side)
    learnt.save(asked.out)
    lengths = [len(learnt.encode(mask)) for mask in masks]
    print(f"{asked.out}: {learnt.size} tokens, {np.mean(lengths):.1f} for a mask on average")


if __name__ == "__main__":
    main()
