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


MAPPED = {"question": "q", "images": "pics", "answer": "a", "messages": "talk"}


def _asked(turns: Turns) -> dict[str, Any]:
    """The question under a name of its own; a conversation as its messages."""
    return {"q": _string(turns[0][1])} if len(turns) == 1 else {"talk": strings(turns)}


def _columns(turns: Turns, folder: Path) -> dict[str, Any]:
    held = columns(turns)
    pictures = {"pics": held.pop("images")} if "images" in held else {}
    return {**_asked(turns), **pictures, **held, "a": "red"}


def _delimited(mark: str, name: str) -> Callable[[Path, dict[str, Turns]], Path]:
    def write(folder: Path, contents: dict[str, Turns]) -> Path:
        names = ("id", "q", "talk", "pics", "videos", "audios", "a")
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, names, delimiter=mark)
            writer.writeheader()
            for key, turns in contents.items():
                row = {"id": key, **_columns(turns, folder)}
                writer.writerow(
                    {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
                )
        return folder / name

    return write


def _swift_rows(folder: Path, contents: dict[str, Turns]) -> list[dict[str, Any]]:
    return [{"id": name, **_swift(turns, folder)} for name, turns in contents.items()]


def _json(folder: Path, contents: dict[str, Turns]) -> Path:
    (folder / "d.json").write_text(json.dumps(_swift_rows(folder, contents), indent=1))
    return folder / "d.json"


def _marked(folder: Path, contents: dict[str, Turns]) -> Path:
    lines = "".join(f"{json.dumps(row)}\r\n" for row in _swift_rows(folder, contents))
    (folder / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    return folder / "d.jsonl"


def _shards(folder: Path, contents: dict[str, Turns]) -> Path:
    for number, row in enumerate(_swift_rows(folder, contents)):
        path = folder / f"train-{number:05d}-of-{len(contents):05d}.jsonl"
        path.write_text(json.dumps(row) + "\n")
    return folder / "train-*.jsonl"


def _typed_rows(folder: Path, contents: dict[str, Turns]) -> list[dict[str, Any]]:
    """ms-swift rows whose columns are of one type each, as Arrow needs them."""
    rows = _swift_rows(folder, contents)
    for row in rows:
        if isinstance(row.get("videos", [""])[0], list):
            row["frames"] = row.pop("videos")[0]
    every = {key: None for row in rows for key in row}
    return [{**every, **row} for row in rows]


def _embedded(folder: Path, contents: dict[str, Turns]) -> list[dict[str, Any]]:
    """The same with the files themselves in the rows."""
    return [
        {
            name: [{"bytes": (folder / v).read_bytes(), "path": v} for v in value]
            if value and name in ("images", "videos", "audios", "frames")
            else value
            for name, value in row.items()
        }
        for row in _typed_rows(folder, contents)
    ]


def _parquet(folder: Path, contents: dict[str, Turns]) -> Path:
    return parquet(folder / "d.parquet", _embedded(folder, contents))


def _hub(folder: Path, contents: dict[str, Turns]) -> Path:
    """A data set of the hub as `datasets` keeps it once it was fetched; nothing is fetched here."""
    datasets = pytest.importorskip("datasets")
    cached = folder / "cache" / "owner___cards" / "default" / "0.0.0" / "0123456789abcdef"
    cached.mkdir(parents=True)
    whole = datasets.Dataset.from_list(_embedded(folder, contents))
    with datasets.arrow_writer.ArrowWriter(path=str(cached / "cards-train.arrow")) as writer:
        writer.write_table(whole.data.table)
    whole.info.dataset_name, whole.info.config_name = "cards", "default"
    whole.info.version = datasets.Version("0.0.0")
    split = datasets.SplitInfo("train", num_examples=len(whole), dataset_name="cards")
    whole.info.splits = datasets.SplitDict({"train": split}, dataset_name="cards")
    whole.info.write_to_directory(str(cached))
    datasets.config.HF_DATASETS_CACHE = str(folder / "cache")
    return Path("hf:owner/cards@train")


def _saved(folder: Path, contents: dict[str, Turns]) -> Path:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(_typed_rows(folder, contents))
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
    "plain columns, mapped": Loader(_jsonl(_columns), mapped=MAPPED),
    "CSV": Loader(_delimited(",", "d.csv"), mapped=MAPPED),
    "TSV": Loader(_delimited("\t", "d.tsv"), mapped=MAPPED),
    "JSON": Loader(_json),
    "JSON Lines with a byte-order mark": Loader(_marked),
    "parquet": Loader(_parquet),
    "a glob of shards": Loader(_shards),
    "`save_to_disk`": Loader(_saved),
    "`hf:` from the cache": Loader(_hub),
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
    # As long as before: other seconds would change the positions of a clip that nobody sees.
    (folder / "v.mp4").write_bytes(clip(frames=4, size=(56, 56), shade=60 if changed else 0))
