"""One small made task for each modality and for the kinds of reward that these leave out.

Two pictures, a clip, a sound, a clip with its sound, a screen, many boxes, a maze. Everything is
drawn or synthesised, digits are real handwriting (scikit-learn's scans), so nothing is downloaded.
The training splits have other random numbers than the held-out ones, and no medium of one is in
another; no scan of a held-out test medium is in a training medium.
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mmrl.data_recipes.digits import Scans, enlarge, finish, ink, ink_box, split_scans, write_jsonl
from mmrl.errors import UserError
from mmrl.recipes.manifest import write_made
from mmrl.recipes.recipe import About

Pixels: TypeAlias = npt.NDArray[np.uint8]
Sound: TypeAlias = npt.NDArray[np.float32]
Fields: TypeAlias = dict[str, Any]
Maker: TypeAlias = Callable[[np.random.Generator, Path, Scans], Fields]

ABOUT = About(
    name="modalities",
    summary="a small made task for each modality: digits, beeps, clips, screens, mazes",
    task="vqa_mix, temporal_grounding, audio_qa, video_choice, gui_action, detection, maze",
    license="CC-BY-4.0",
    url="https://archive.ics.uci.edu/dataset/80",
)
SIDE = 84  # pixels of a picture: 9 tokens of a Qwen-VL model
CLIP_SIDE = 56  # pixels of a frame: 4 tokens for two frames
FRAMES = 8
RATE = 16_000  # samples a second
SCREEN = (112, 84)
COLOURS = {"red": (214, 48, 49), "green": (39, 174, 96), "blue": (52, 110, 219)}
NUMBERS = ("one", "two", "three", "four")
PICTURES = ("the first", "the second", "both the same")
MORE = ("beeps", "flashes", "both the same")
MAZE_SIDE = 3
OPEN_WALLS = 0.3  # share of a spanning tree's other walls that are open


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

    Validation media show training scans, for choices that must not see the test split. The same
    options give the same bytes. `source` is unused.
    """
    if source is not None:
        raise UserError("the modalities recipe reads no input folder: leave out --in")
    scans = split_scans(seed)
    for stream, (kind, make) in enumerate(MAKERS.items()):
        folder = out / kind
        (folder / "media").mkdir(parents=True, exist_ok=True)
        sizes = {"train": train, "validation": validation, "test": test}
        asked: set[str] = set()
        for place, (split, size) in enumerate(sizes.items()):
            part = scans["test" if split == "test" else "train"]
            names = [f"{kind}-{split}-{number:04d}" for number in range(size)]
            records = [
                {
                    "id": name,
                    **_draw(make, [seed, stream, place, n], folder / "media" / name, part, asked),
                }
                for n, name in enumerate(names)
            ]
            write_jsonl(folder / f"{split}.jsonl", records)
        write_made(folder, recipe=ABOUT.name, license=ABOUT.license, kind=kind, seed=seed)


def _draw(make: Maker, key: list[int], stem: Path, scans: Scans, asked: set[str]) -> Fields:
    """A record of random numbers from `key`, drawn again where it was asked before."""
    for attempt in itertools.count():
        drawn = make(np.random.default_rng(key + [attempt] * (attempt > 0)), stem, scans)
        text = json.dumps(drawn, sort_keys=True)
        if text not in asked:
            asked.add(text)
            return drawn
    raise AssertionError("unreachable")


def two_images(rng: np.random.Generator, stem: Path, scans: Scans) -> Fields:
    """Two pictures of one to four digits each; asked is which one shows more."""
    counts = [int(n) for n in rng.integers(1, len(NUMBERS) + 1, 2)]
    names = []
    for number, count in enumerate(counts):
        path = stem.with_name(f"{stem.name}-{number}.png")
        finish(_digits(rng, scans, count)[0], rng).save(path)
        names.append(_relative(path))
    return {
        "images": names,
        "problem": "<image><image>Which picture shows more digits?",
        "problem_type": "multiple choice",
        "options": _lettered(PICTURES),
        "solution": f"<answer>{'ABC'[_larger(*counts)]}</answer>",
    }


def video(rng: np.random.Generator, stem: Path, scans: Scans) -> Fields:
    """Some seconds of empty paper, on which a digit lies for a while; asked is when."""
    start = int(rng.integers(0, FRAMES - 1))
    end = start + int(rng.integers(2, min(4, FRAMES - start) + 1))
    shown = [start <= second < end for second in range(FRAMES)]
    path = stem.with_suffix(".mp4")
    _write_clip(path, _appearances(rng, scans, shown), 1)
    return {
        "video": _relative(path),
        "duration": FRAMES,
        "timestamp": [start, end],
        "sentence": "a digit is shown",
    }


def audio(rng: np.random.Generator, stem: Path, _: Scans) -> Fields:
    """One to four beeps of one pitch in a second of noise; asked is how many."""
    count = int(rng.integers(1, len(NUMBERS) + 1))
    path = stem.with_suffix(".wav")
    _package("soundfile", "audio").write(path, _beeps(rng, count), RATE, subtype="PCM_16")
    return {
        "audio_id": _relative(path),
        "question": "How many beeps are heard?",
        "choices": list(NUMBERS),
        "answer": NUMBERS[count - 1],
    }


def audio_video(rng: np.random.Generator, stem: Path, _: Scans) -> Fields:
    """A screen that flashes one to four times in a second of as many or other beeps."""
    beeps, flashes = (int(n) for n in rng.integers(1, len(NUMBERS) + 1, 2))
    shown = np.zeros(FRAMES, dtype=bool)
    shown[2 * rng.choice(FRAMES // 2, flashes, replace=False) + rng.integers(2)] = True
    path = stem.with_suffix(".mp4")
    _write_clip(path, _flashes(rng, shown.tolist()), FRAMES, _beeps(rng, beeps))
    return {
        "video": _relative(path),
        "question": "Which are more, beeps or flashes?",
        "options": _lettered(MORE),
        "answer": "ABC"[_larger(beeps, flashes)],
    }


def screenshot(rng: np.random.Generator, stem: Path, _: Scans) -> Fields:
    """A window with lines of text and one button, which is to be clicked."""
    screen = Image.new("RGB", SCREEN, tuple(int(v) for v in rng.integers(225, 250, 3)))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, SCREEN[0], 9), fill=(90, 94, 102))
    for y in range(16, SCREEN[1] - 6, 9):
        draw.rectangle((4, y, int(rng.integers(20, SCREEN[0] - 4)), y + 1), fill=(176, 180, 188))
    width, height = int(rng.integers(30, 41)), int(rng.integers(17, 22))
    x = int(rng.integers(2, SCREEN[0] - width - 2))
    y = int(rng.integers(12, SCREEN[1] - height - 2))
    name = str(rng.choice(list(COLOURS)))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=COLOURS[name])
    path = stem.with_suffix(".png")
    screen.save(path)
    instruction = f"press the {name} button"
    box = [x, y, x + width, y + height]
    return {"image": _relative(path), "instruction": instruction, "bbox": box}


def boxes(rng: np.random.Generator, stem: Path, scans: Scans) -> Fields:
    """One or two digits; asked is the box of each."""
    canvas, found = _digits(rng, scans, int(rng.integers(1, 3)), across=2)
    path = stem.with_suffix(".png")
    finish(canvas, rng).save(path)
    rows = [{"bbox": [x, y, X - x, Y - y], "category": "digit"} for x, y, X, Y in found]
    return {"image": _relative(path), "categories": ["digit"], "annotations": rows}


def maze(rng: np.random.Generator, stem: Path, _: Scans) -> Fields:
    """A maze of nine cells in AlphaMaze's words: a spanning tree, some more walls open."""
    cells = [(row, column) for row in range(MAZE_SIDE) for column in range(MAZE_SIDE)]
    walls = _maze_walls(rng, cells)
    origin, target = rng.choice(len(cells), 2, replace=False)
    lines = []
    for number, (row, column) in enumerate(cells):
        around = {"up": (row - 1, column), "down": (row + 1, column)}
        around |= {"left": (row, column - 1), "right": (row, column + 1)}
        closed = [
            way
            for way, beyond in around.items()
            if beyond not in cells or frozenset(((row, column), beyond)) in walls
        ]
        holds = {origin: "origin", target: "target"}.get(number, "blank")
        cell = f"<|{row}-{column}|><|{'_'.join(closed) or 'no'}_wall|><|{holds}|>"
        lines.append(cell + ("\n" if column == MAZE_SIDE - 1 else ""))
    return {"Prompt": "MAZE:\n" + "".join(lines).strip(), "Level": 1}


MAKERS: dict[str, Maker] = {
    "two_images": two_images,
    "video": video,
    "audio": audio,
    "audio_video": audio_video,
    "screenshot": screenshot,
    "boxes": boxes,
    "maze": maze,
}


def _larger(first: int, second: int) -> int:
    """0 if the first is larger, 1 if the second is, 2 if neither."""
    return 2 if first == second else int(second > first)


def _lettered(options: tuple[str, ...]) -> list[str]:
    return [f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=False)]


def _relative(path: Path) -> str:
    return f"media/{path.name}"


def _digit(rng: np.random.Generator, scans: Scans, low: float, high: float) -> Pixels:
    """A scan between two sizes in pixels, cropped to its ink."""
    width, height = (int(n) for n in rng.uniform(low, high, 2))
    digit = enlarge(scans.images[int(rng.integers(len(scans.labels)))], width, height)
    x1, y1, x2, y2 = ink_box(digit)
    return digit[y1:y2, x1:x2]


def _digits(
    rng: np.random.Generator, scans: Scans, count: int, across: int = 3
) -> tuple[Pixels, list[list[int]]]:
    """Digits in distinct cells of a grid, and the xyxy box of each one's ink."""
    canvas, side = np.zeros((SIDE, SIDE), dtype=np.uint8), SIDE // across
    found = []
    for cell in rng.choice(across**2, count, replace=False):
        digit = _digit(rng, scans, 0.8 * side, side)
        row, column = divmod(int(cell), across)
        height, width = digit.shape
        left = column * side + int(rng.integers(0, side - width + 1))
        top = row * side + int(rng.integers(0, side - height + 1))
        ink(canvas, digit, left, top)
        found.append([left, top, left + width, top + height])
    return canvas, found


def _flashes(rng: np.random.Generator, lit: list[bool]) -> list[Pixels]:
    """Dark frames of noise, some of them lit."""
    dark, bright = rng.uniform(10, 60), rng.uniform(190, 245)
    shape = (CLIP_SIDE, CLIP_SIDE, 3)
    return [
        np.clip(rng.normal(bright if on else dark, 6, shape), 0, 255).astype(np.uint8) for on in lit
    ]


def _appearances(rng: np.random.Generator, scans: Scans, shown: list[bool]) -> list[Pixels]:
    """Frames of a digit in one place, seen in some of them; noise differs from frame to frame."""
    digit = _digit(rng, scans, 0.55 * CLIP_SIDE, 0.9 * CLIP_SIDE)
    height, width = digit.shape
    at = (int(rng.integers(0, CLIP_SIDE - width + 1)), int(rng.integers(0, CLIP_SIDE - height + 1)))
    blank = np.zeros((CLIP_SIDE, CLIP_SIDE), dtype=np.uint8)
    drawn = blank.copy()
    ink(drawn, digit, *at)
    paper, stroke = rng.uniform(225, 255), rng.uniform(0, 60)
    frames = []
    for seen in shown:
        shade = paper + (stroke - paper) * ((drawn if seen else blank) / 255)
        noisy = np.clip(shade + rng.normal(0, 3, shade.shape), 0, 255).astype(np.uint8)
        frames.append(np.repeat(noisy[..., None], 3, axis=-1))
    return frames


def _beeps(rng: np.random.Generator, count: int) -> Sound:
    """A second of noise with beeps of one pitch [RATE]."""
    samples = rng.normal(0, 0.01, RATE).astype(np.float32)
    pitch = rng.uniform(400, 2000)
    for slot in np.sort(rng.choice(5, count, replace=False)):
        start = round((slot + rng.uniform(0.05, 0.25)) / 5 * RATE)
        beep = _tone(round(rng.uniform(0.1, 0.14) * RATE), pitch, rng)
        samples[start : start + len(beep)] += beep
    return samples


def _tone(length: int, pitch: float, rng: np.random.Generator) -> Sound:
    """A sine of one pitch [length], its ends faded within 5 ms."""
    phase = 2 * np.pi * np.cumsum(np.full(length, pitch)) / RATE
    fade = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / (0.005 * RATE))
    loud = rng.uniform(0.2, 0.6)
    made: Sound = (loud * fade * np.sin(phase)).astype(np.float32)
    return made


Cell: TypeAlias = tuple[int, int]


def _maze_walls(rng: np.random.Generator, cells: list[Cell]) -> set[frozenset[Cell]]:
    """Walls between neighbouring cells, such that every cell is reached from every other."""
    sides = [frozenset((a, b)) for a in cells for b in cells if a < b and _near(a, b)]
    joined = {cell: {cell} for cell in cells}
    walls = set()
    for side in rng.permutation(len(sides)):
        first, second = sides[side]
        if joined[first] is not joined[second]:
            joined[first] |= joined[second]
            joined |= dict.fromkeys(joined[first], joined[first])
        elif rng.random() >= OPEN_WALLS:
            walls.add(sides[side])
    return walls


def _near(a: Cell, b: Cell) -> bool:
    return abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1


def _write_clip(path: Path, frames: list[Pixels], rate: int, sound: Sound | None = None) -> None:
    """Write an H.264 clip, with AAC sound where given; the same frames give the same bytes."""
    av = _package("av", "video")
    with av.open(str(path), "w") as container:
        # x264's macroblock tree reads memory that it did not write: clips would differ by process.
        settings = {"crf": "18", "x264-params": "mbtree=0"}
        pictures = container.add_stream("libx264", rate=rate, options=settings)
        pictures.width = pictures.height = CLIP_SIDE
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
