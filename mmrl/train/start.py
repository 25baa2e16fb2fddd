"""What is changed of a model before a run: tokens of its own, and other language weights.

New tokens need weights before anything is loaded, so the model is written anew, into `start` of the
run's folder, and loaded from there. Language weights are read where a phase begins.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mmrl.config import RunConfig, StartConfig
from mmrl.errors import ConfigError
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import Policy, load_policy

FOLDER = "start"
"""Where a run keeps the model that it starts with, if that is not the one it was given."""
SHOWN = 6
"""New tokens that are named."""
WRAPPERS = ("model", "language_model", "text_model")
"""What models call the modules around their language layers."""


def own_start(config: RunConfig, say: Callable[[str], None]) -> Path | None:
    """The folder of the model with a run's new tokens, written unless it is there; None: no new.

    What is half written, of a run that was killed, is written again.
    """
    tokens = expanded(config.start.add_tokens)
    if not tokens:
        return None
    folder = config.run / FOLDER
    if not folder.is_dir():
        half = folder.with_name(f".{FOLDER}")
        shutil.rmtree(half, ignore_errors=True)
        plain = {"lora": None, "gradient_checkpointing": False}
        policy = load_policy(config.model.model_copy(update=plain))
        new = add_tokens(policy.model, policy.processor.tokenizer, tokens)
        policy.save(half)
        half.rename(folder)
        shown = ", ".join([*new[:SHOWN], *(["..."] if len(new) > SHOWN else [])])
        say(f"start: {len(new)} new tokens ({shown}), written to {folder}")
    return folder


def expanded(tokens: Sequence[str]) -> list[str]:
    """The tokens, one with `{first..last}` in it as many as there are numbers.

    >>> expanded(["<a>", "<b{0..2}>"])
    ['<a>', '<b0>', '<b1>', '<b2>']
    """
    found: list[str] = []
    for token in tokens:
        head, opened, rest = token.partition("{")
        numbers, closed, tail = rest.partition("}")
        first, dots, last = numbers.partition("..")
        if opened and closed and dots and first.isdigit() and last.isdigit():
            found += [f"{head}{i}{tail}" for i in range(int(first), int(last) + 1)]
        else:
            found.append(token)
    return found


def add_tokens(model: Any, tokenizer: Any, tokens: Sequence[str]) -> list[str]:
    """Give a model tokens of its own; returns those that were no single token before.

    Each starts as the mean of the embeddings [H] of the tokens it was written with, and so does its
    row of the head [H]. They are text, not control: decoded like any other.
    """
    pieces = {t: tokenizer(t, add_special_tokens=False)["input_ids"] for t in tokens}
    new = [token for token in dict.fromkeys(tokens) if len(pieces[token]) != 1]
    tokenizer.add_tokens(new)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tables = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not tables[0]:
        tables.append(head.weight)
    with torch.no_grad():
        for token in new:
            place = tokenizer.convert_tokens_to_ids(token)
            for table in tables:
                table[place] = table[pieces[token]].mean(0)
    return new


def take_language(policy: Policy, start: StartConfig) -> None:
    """Let the policy take its language weights, all but encoders and projectors, from a folder.

    The folder holds the same language model, alone or in a model that takes media. Raises
    ConfigError where a weight is missing or of another shape.
    """
    if start.language is None:
        return
    family = policy.family
    media = {id(p) for p in (*family.tower_parameters(), *family.projector_parameters())}
    if not media:
        raise ConfigError("start.language: the generic family does not know the model's towers")
    wanted = {_bare(n): p for n, p in policy.model.named_parameters() if id(p) not in media}
    found: set[str] = set()
    with torch.no_grad():
        for name, weight in _weights(model_folder(start.language)):
            parameter = wanted.get(_bare(name))
            if parameter is None:
                continue
            if parameter.shape != weight.shape:
                raise ConfigError(
                    f"start.language: '{name}' of {start.language} is {list(weight.shape)}, here "
                    f"it is {list(parameter.shape)}: take the same architecture and vocabulary"
                )
            parameter.copy_(weight)
            found.add(_bare(name))
    if missing := sorted(wanted.keys() - found):
        raise ConfigError(f"start.language: {start.language} has no '{missing[0]}'")


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder's weight files by name, one at a time."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"start.language: no *.safetensors in {folder}")
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                yield name, opened.get_tensor(name)


def _bare(name: str) -> str:
    """A weight's name without the modules that only wrap the language layers."""
    parts = name.split(".")
    while parts[0] in WRAPPERS:
        parts = parts[1:]
    return ".".join(parts)
