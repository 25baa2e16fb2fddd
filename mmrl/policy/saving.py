"""A model's folder written while its weights come by, so that they are never whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from mmrl.policy.buckets import Buckets, drain


def save_in_buckets(model: Any, buckets: Buckets, folder: Path, *, writes: bool) -> None:
    """Write what `save_pretrained` would, in a file a bucket with an index; one process `writes`.

    The others go through the buckets, whose weights are of any shapes.
    """
    if not writes:
        drain(buckets)
        return
    part = folder / ".part"
    for bucket in buckets:
        # Its rules for names and for what is tied are transformers' own.
        model.save_pretrained(part, state_dict=dict(bucket), max_shard_size="1000TB")
        count = len(list(folder.glob("*.bucket")))
        (part / SAFE_WEIGHTS_NAME).rename(folder / f"{count:05d}.bucket")
        for file in part.iterdir():  # the configuration, the same every time
            file.replace(folder / file.name)
    shutil.rmtree(part)
    _index(folder)


def _index(folder: Path) -> None:
    """Give the buckets' files the names of a sharded checkpoint, and say what is in which."""
    files = sorted(folder.glob("*.bucket"))
    stem, _, kind = SAFE_WEIGHTS_NAME.rpartition(".")
    where: dict[str, str] = {}
    size = 0
    for number, file in enumerate(files, 1):
        name = f"{stem}-{number:05d}-of-{len(files):05d}.{kind}"
        with safe_open(file, "pt") as opened:
            where |= dict.fromkeys(opened.keys(), name)
        with file.open("rb") as raw:  # a header, with its length in front, then the tensors
            size += file.stat().st_size - 8 - int.from_bytes(raw.read(8), "little")
        file.rename(folder / name)
    index = {"metadata": {"total_size": size}, "weight_map": where}
    text = json.dumps(index, indent=2, sort_keys=True)
    (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(text + "\n", encoding="utf-8")
