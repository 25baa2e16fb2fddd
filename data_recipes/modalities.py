"""One small made task for each modality: two pictures, a clip, a sound, both together, a screen.

Everything is drawn or synthesised, so nothing is downloaded. The training splits have other random
numbers than the held-out ones, and no medium of one is in another.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mmrl.data_recipes.digits import write_jsonl
from mmrl.errors import UserError
from mmrl.recipes.recipe import About
from mmrl.recipes.store import sha256

Pixels: TypeAlias = npt.NDArray[np.uint8]
Sound: TypeAlias = npt.NDArray[np.float32]
Fields: TypeAlias = dict[str, Any]
Maker: TypeAlias = Callable[[np.random.Generator, Path], Fields]

ABOUT = About(
    name="modalities",
    summary="a small made task for each modality: shapes, beeps, moving discs, screens",
    task="vqa_mix, video_choice, audio_qa, gui_grounding",
    license="CC0-1.0",
)
SIDE = 56  # pixels of pictures and frames: 4 tokens of a Qwen-VL model
FRAMES = 4
FRAME_RATE = 4  # frames a second: a clip lasts a second
RATE = 16_000  # samples a second
SCREEN = (112, 84)
COLOURS = {"red": (214, 48, 49), "green": (39, 174, 96), "blue": (52, 110, 219)}
NUMBERS = ("one", "two", "three", "four")
PICTURES = ("none", "the first", "the second", "both")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def build(
    source: Path | None,
    out: Path,
    *,
    seed: int = 0,
    train: int = 1000,
    validation: int = 200,
    test: int = 300,
) -> None:
    """Write `out/KIND/{train,validation,test}.jsonl`, their media and a manifest for every kind.

    The same options give the same bytes, clips as far as their encoder does. `source` is unused.
    """
    if source is not None:
        raise UserError("the modalities recipe reads no input folder: leave out --in")
    for stream, (kind, make) in enumerate(MAKERS.items()):
        folder = out / kind
        (folder / "media").mkdir(parents=True, exist_ok=True)
        sizes = {"train": train, "validation": validation, "test": test}
        for place, (split, size) in enumerate(sizes.items()):
            records = []
            for number in range(size):
                rng = np.random.default_rng([seed, stream, place, number])
                name = f"{kind}-{split}-{number:04d}"
                records.append({"id": name, **make(rng, folder / "media" / name)})
            write_jsonl(folder / f"{split}.jsonl", records)
        _write_manifest(folder, kind=kind, seed=seed)


def two_images(rng: np.random.Generator, stem: Path) -> Fields:
    """Two pictures of a disc or a square each; asked is which of them show a disc."""
    shown = rng.integers(0, 2, 2)
    names = []
    for number, disc in enumerate(shown):
        size = int(rng.integers(14, 26))
        at = tuple(int(v) for v in rng.integers(2, SIDE - size - 2, 2))
        path = stem.with_name(f"{stem.name}-{number}.png")
        Image.fromarray(_shape(_paper(rng), at, size, _ink(rng), disc=bool(disc))).save(path)
        names.append(_relative(path))
    return {
        "images": names,
        "problem": "<image><image>Which pictures show a disc?",
        "problem_type": "multiple choice",
        "options": [f"{letter}. {text}" for letter, text in zip("ABCD", PICTURES, strict=True)],
        "solution": f"<answer>{'ABCD'[int(shown[0] + 2 * shown[1])]}</answer>",
    }


def video(rng: np.random.Generator, stem: Path) -> Fields:
    """A disc that moves; asked is which way."""
    way = int(rng.integers(len(WAYS)))
    path = stem.with_suffix(".mp4")
    _write_clip(path, _moving_disc(rng, list(WAYS.values())[way]))
    return _choice(path, "Which way does the disc move?", tuple(WAYS), way)


def audio(rng: np.random.Generator, stem: Path) -> Fields:
    """One to four beeps of one pitch in a second of noise; asked is how many."""
    count = int(rng.integers(1, len(NUMBERS) + 1))
    samples = rng.normal(0, 0.01, RATE).astype(np.float32)
    pitch = rng.uniform(400, 2000)
    for slot in np.sort(rng.choice(5, count, replace=False)):
        start = round((slot + rng.uniform(0.05, 0.25)) / 5 * RATE)
        beep = _tone(round(rng.uniform(0.1, 0.14) * RATE), pitch, pitch, rng)
        samples[start : start + len(beep)] += beep
    path = stem.with_suffix(".wav")
    _package("soundfile", "audio").write(path, samples, RATE, subtype="PCM_16")
    return {
        "audio_id": _relative(path),
        "question": "How many beeps are heard?",
        "choices": list(NUMBERS),
        "answer": NUMBERS[count - 1],
    }


def audio_video(rng: np.random.Generator, stem: Path) -> Fields:
    """A disc that moves left or right under a tone that rises or falls; asked are both."""
    which = int(rng.integers(4))
    way, falls = ("left", "right")[which // 2], bool(which % 2)
    low = rng.uniform(300, 700)
    ends = (low, low * rng.uniform(2.5, 4))
    sound = rng.normal(0, 0.01, RATE).astype(np.float32)
    sound += _tone(RATE, *(ends[::-1] if falls else ends), rng)
    path = stem.with_suffix(".mp4")
    _write_clip(path, _moving_disc(rng, WAYS[way]), sound)
    options = ("left, rising", "left, falling", "right, rising", "right, falling")
    return _choice(path, "Which way does the disc move, and how does the tone?", options, which)


def screenshot(rng: np.random.Generator, stem: Path) -> Fields:
    """A window with a button of each colour; the click is to land on the named one."""
    width = SCREEN[0]
    screen = Image.new("RGB", SCREEN, tuple(int(v) for v in rng.integers(225, 250, 3)))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, width, 9), fill=(90, 94, 102))
    boxes = {}
    for row, name in enumerate(rng.permutation(list(COLOURS))):
        size = (int(rng.integers(26, 36)), int(rng.integers(16, 21)))
        x = int(rng.integers(2, width - size[0] - 2))
        y = 12 + 24 * row + int(rng.integers(0, 24 - size[1] + 1))
        boxes[str(name)] = (x, y, *size)
        draw.rectangle((x, y, x + size[0] - 1, y + size[1] - 1), fill=COLOURS[name])
    wanted = str(rng.choice(list(COLOURS)))
    path = stem.with_suffix(".png")
    screen.save(path)
    return {
        "img_filename": _relative(path),
        "bbox": list(boxes[wanted]),
        "instruction": f"press the {wanted} button",
        "data_type": "icon",
        "data_source": "windows",
    }


MAKERS: dict[str, Maker] = {
    "two_images": two_images,
    "video": video,
    "audio": audio,
    "audio_video": audio_video,
    "screenshot": screenshot,
}


def _choice(path: Path, question: str, options: tuple[str, ...], right: int) -> Fields:
    lettered = [f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=True)]
    fields = {"question": question, "options": lettered, "answer": "ABCD"[right]}
    return {"video": _relative(path), **fields}


def _relative(path: Path) -> str:
    return f"media/{path.name}"


def _paper(rng: np.random.Generator) -> Pixels:
    tint = rng.integers(200, 256, 3)
    noisy = tint + rng.normal(0, 6, (SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _ink(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(0, 110, 3))


def _shape(
    paper: Pixels, at: tuple[int, ...], size: int, ink: tuple[int, ...], *, disc: bool
) -> Pixels:
    image = Image.fromarray(paper)
    box = (*at, at[0] + size, at[1] + size)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if disc else draw.rectangle)(box, fill=ink)
    return np.asarray(image)


def _moving_disc(rng: np.random.Generator, way: tuple[int, int]) -> list[Pixels]:
    """Frames of a disc that crosses a third to a half of the picture in one direction."""
    size = int(rng.integers(14, 20))
    travel = int(rng.integers(SIDE // 3, SIDE // 2 - 4))
    room = SIDE - size - travel - 2
    along, across = int(rng.integers(2, room + 1)), int(rng.integers(2, SIDE - size - 1))
    paper, ink = _paper(rng), _ink(rng)
    frames = []
    for step in range(FRAMES):
        gone = round(travel * step / (FRAMES - 1))
        place = along + (gone if sum(way) > 0 else travel - gone)
        at = (place, across) if way[0] else (across, place)
        frames.append(_shape(paper, at, size, ink, disc=True))
    return frames


def _tone(
    length: int, first: float, last: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A sine from one pitch to another [length], its ends faded within 5 ms."""
    phase = 2 * np.pi * np.cumsum(np.geomspace(first, last, length)) / RATE
    fade = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / (0.005 * RATE))
    loud = rng.uniform(0.2, 0.6)
    made: npt.NDArray[np.float32] = (loud * fade * np.sin(phase)).astype(np.float32)
    return made


def _write_clip(path: Path, frames: list[Pixels], sound: Sound | None = None) -> None:
    """Write an H.264 clip, with AAC sound where given; one thread, so that bytes repeat."""
    av = _package("av", "video")
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "18"})
        pictures.width = pictures.height = SIDE
        pictures.pix_fmt = "yuv420p"
        pictures.thread_count = 1
        heard = None if sound is None else container.add_stream("aac", rate=RATE, layout="mono")
        for frame in frames:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode())
        if sound is not None and heard is not None:
            packed = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            packed.sample_rate, packed.pts = RATE, 0
            container.mux(heard.encode(packed))
            container.mux(heard.encode())


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"making the data needs {name}: pip install 'mmrl[{extra}]'") from None


def _write_manifest(folder: Path, **facts: Any) -> None:
    """Write `manifest.json`: what was made, and a hash of every file."""
    files = sorted(path for path in folder.rglob("*") if path.suffix != ".json" and path.is_file())
    hashes = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    manifest = {"recipe": ABOUT.name, "license": ABOUT.license, **facts, "sha256": hashes}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
