"""The same questions in every layout: what a record is made of, and how each layout writes it."""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.test_tables import add, parquet
from tests.modalities.test_audio import wav
from tests.modalities.test_video import clip

KINDS = {"a.png": "image", "b.png": "image", "t.wav": "audio", "v.mp4": "video"}
FRAMES = ("a.png", "b.png")
Piece = str | tuple[str, ...]
"""A text, a file by its name, or the files of a clip's frames."""
Turns = tuple[tuple[str, tuple[Piece, ...]], ...]

CONTENTS: dict[str, Turns] = {
    "image": (("user", ("a.png", "What is it?")),),
    "several": (("user", ("First ", "a.png", " then ", "b.png", "?")),),
    "frames": (("user", (FRAMES, "What moves?")),),
    "video": (("user", ("v.mp4", "What moves?")),),
    "audio": (("user", ("t.wav", "What is said?")),),
    "turns": (
        ("user", ("a.png", "Describe it.")),
        ("assistant", ("A card.",)),
        ("user", ("And ", "b.png", "?")),
    ),
}


def kind_of(piece: Piece) -> str | None:
    return "video" if isinstance(piece, tuple) else KINDS.get(piece)


def media(turns: Turns, kind: str) -> list[Piece]:
    return [p for _, pieces in turns for p in pieces if kind_of(p) == kind]


def columns(turns: Turns) -> dict[str, Any]:
    """Columns `images`, `videos`, `audios`, those that are needed."""
    found = {f"{kind}s": media(turns, kind) for kind in ("image", "video", "audio")}
    return {name: [_listed(p) for p in pieces] for name, pieces in found.items() if pieces}


def _listed(piece: Piece) -> Any:
    return list(piece) if isinstance(piece, tuple) else piece


def strings(turns: Turns) -> list[dict[str, Any]]:
    return [{"role": role, "content": _string(pieces)} for role, pieces in turns]


def _string(pieces: tuple[Piece, ...]) -> str:
    return "".join(f"<{kind}>" if (kind := kind_of(p)) else str(p) for p in pieces)


def typed(turns: Turns, part: Callable[[str, Piece], dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of typed parts; `part` writes a medium of a kind."""
    return [
        {
            "role": role,
            "content": [
                part(kind, p) if (kind := kind_of(p)) else {"type": "text", "text": p}
                for p in pieces
            ],
        }
        for role, pieces in turns
    ]


@dataclass(frozen=True)
class Loader:
    """A layout: how rows of some contents are written, and how `data.columns` maps them."""

    write: Callable[[Path, dict[str, Turns]], Path]
    lacks: tuple[str, ...] = ()
    mapped: dict[str, str] | None = None


def _jsonl(row: Callable[[Turns, Path], dict[str, Any]]) -> Callable[..., Path]:
    def write(folder: Path, contents: dict[str, Turns]) -> Path:
        rows = [{"id": name, **row(turns, folder)} for name, turns in contents.items()]
        (folder / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        return folder / "d.jsonl"

    return write


def _trl(turns: Turns, folder: Path) -> dict[str, Any]:
    return {"prompt": typed(turns, lambda kind, _: {"type": kind}), **columns(turns)}


def _swift(turns: Turns, folder: Path) -> dict[str, Any]:
    reply = {"role": "assistant", "content": "red"}
    return {"messages": [*strings(turns), reply], **columns(turns), "solution": "red"}


def _llava(turns: Turns, folder: Path) -> dict[str, Any]:
    said = {"user": "human", "assistant": "gpt"}
    talk = [{"from": said[r], "value": _string(p)} for r, p in turns]
    held = columns(turns)
    if len(held.get("images", ())) == 1:
        held = {"image": held["images"][0]}
    return {"conversations": [*talk, {"from": "gpt", "value": "red"}], **held}


def _openai(turns: Turns, folder: Path) -> dict[str, Any]:
    def part(kind: str, piece: Piece) -> dict[str, Any]:
        held = base64.b64encode((folder / str(piece)).read_bytes()).decode()
        if kind == "audio":
            return {"type": "input_audio", "input_audio": {"data": held, "format": "wav"}}
        url = f"data:{kind}/any;base64,{held}"
        return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}

    return {"messages": typed(turns, part), "answer": "red"}


def _qwen(turns: Turns, folder: Path) -> dict[str, Any]:
    def part(kind: str, piece: Piece) -> dict[str, Any]:
        files = piece if isinstance(piece, tuple) else (piece,)
        urls = [f"file://{folder / name}" for name in files]
        return {"type": kind, kind: urls if isinstance(piece, tuple) else urls[0]}

    return {"messages": typed(turns, part)}


def _verl(folder: Path, contents: dict[str, Turns]) -> Path:
    def held(piece: Any) -> dict[str, Any]:
        return {"bytes": (folder / piece).read_bytes(), "path": None}

    rows = [
        {
            "prompt": strings(turns),
            **{
                name: [held(p) for p in found]
                for name in ("images", "videos", "audios")
                if (found := columns(turns).get(name, []))
            },
            "reward_model": {"style": "rule", "ground_truth": "red"},
            "extra_info": {"index": i},
        }
        for i, turns in enumerate(contents.values())
    ]
    every = {key: None for row in rows for key in row}
    return parquet(folder / "d.parquet", [{**every, **row} for row in rows])


def _csv(folder: Path, contents: dict[str, Turns]) -> Path:
    names = ("id", "q", "pics", "images", "videos", "audios", "a")
    with (folder / "d.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for name, turns in contents.items():
            cells = {key: json.dumps(value) for key, value in columns(turns).items()}
            cells["pics"] = cells.pop("images", "")
            writer.writerow({"id": name, "q": _string(turns[-1][1]), "a": "red", **cells})
    return folder / "d.csv"


def _saved(folder: Path, contents: dict[str, Turns]) -> Path:
    datasets = pytest.importorskip("datasets")
    rows = [{"id": name, **_swift(turns, folder)} for name, turns in contents.items()]
    for row in rows:  # a column is of one type
        if isinstance(row.get("videos", [""])[0], list):
            row["frames"] = row.pop("videos")[0]
    every = {key: None for row in rows for key in row}
    whole = datasets.Dataset.from_list([{**every, **row} for row in rows])
    whole.save_to_disk(folder / "saved")
    # Media paths are relative to the files of the data.
    for name in KINDS:
        (folder / "saved" / name).write_bytes((folder / name).read_bytes())
    return folder / "saved"


def _tar(folder: Path, contents: dict[str, Turns]) -> Path:
    with tarfile.open(folder / "d.tar", "w") as file:
        for name, turns in contents.items():
            add(file, f"{name}.json", json.dumps({"messages": strings(turns)}).encode())
            every = [p for _, pieces in turns for p in pieces if kind_of(p)]
            for i, piece in enumerate(every):
                held = (folder / str(piece)).read_bytes()
                add(file, f"{name}.{i}.{str(piece).rpartition('.')[2]}", held)
    return folder / "d.tar"


LOADERS: dict[str, Loader] = {
    "TRL": Loader(_jsonl(_trl)),
    "ms-swift": Loader(_jsonl(_swift)),
    "LLaVA": Loader(_jsonl(_llava)),
    "OpenAI": Loader(_jsonl(_openai), lacks=("frames",)),
    "qwen-vl-utils": Loader(_jsonl(_qwen)),
    "verl": Loader(_verl, lacks=("frames",)),
    "CSV": Loader(
        _csv, lacks=("turns",), mapped={"question": "q", "images": "pics", "answer": "a"}
    ),
    "datasets": Loader(_saved),
    "WebDataset": Loader(_tar, lacks=("frames",)),
}


def write_media(folder: Path, *, changed: bool) -> None:
    """Pictures, a sound and a clip; where `changed`, other pixels and another tone."""
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (56, 56, 3), dtype=np.uint8)
        if changed and name == "a.png":
            pixels[20, 20] = 255 - pixels[20, 20]
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "PNG")
        (folder / name).write_bytes(held.getvalue())
    (folder / "t.wav").write_bytes(wav(0.5, hertz=(700.0 if changed else 500.0,)))
    (folder / "v.mp4").write_bytes(clip(frames=9 if changed else 4, size=(56, 56)))
