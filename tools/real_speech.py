"""Spoken telephone prompts in five languages (Asterisk's core sounds) as records of `audio_qa`."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

LANGUAGES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
QUESTION = "Which language is spoken?"
SOUNDS = "sounds"
SECONDS = (1.0, 2.5)
SHARES = {"warm": 2, "train": 2, "test": 1}
"""Prompts out of five."""


def write(source: Path, out: Path) -> None:
    """Write `warm.jsonl`, `train.jsonl`, `test.jsonl`, equally many sounds of each language.

    A prompt is in the same file in all languages, so what is said is not known from training.
    English and Spanish are spoken by the same person.
    """
    if all((out / f"{name}.jsonl").is_file() for name in SHARES):
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / SOUNDS).symlink_to(source.resolve())  # records name files below their own folder
    spoken = [sorted(_usable(source, code)) for code in LANGUAGES]
    for name in SHARES:
        parts = [[(n, f) for n, f in sounds if _part(n) == name] for sounds in spoken]
        each = min(map(len, parts))
        lines = [
            json.dumps(_record(prompt, str(file.relative_to(source)), list(LANGUAGES)[i]))
            for turn in range(each)
            for i, (prompt, file) in enumerate(part[turn] for part in parts)
        ]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _usable(source: Path, code: str) -> Iterator[tuple[str, Path]]:
    """Names and files of a language's sounds that are long enough and not too long."""
    (folder,) = (f for f in source.glob(f"{code}_*") if f.is_dir() and not f.is_symlink())
    for file in folder.rglob("*.wav"):
        with wave.open(str(file)) as sound:
            seconds = sound.getnframes() / sound.getframerate()
        if SECONDS[0] <= seconds <= SECONDS[1]:
            yield str(file.relative_to(folder).with_suffix("")), file


def _part(prompt: str) -> str:
    """The file a prompt goes to: by its name alone, and so alike in every language."""
    place = sum(prompt.encode()) % sum(SHARES.values())
    for name, share in SHARES.items():
        if place < share:
            return name
        place -= share
    raise AssertionError("shares cover every place")


def _record(prompt: str, file: str, code: str) -> dict[str, str | Sequence[str]]:
    return {
        "id": f"{code}-{prompt}",
        "audio_id": f"{SOUNDS}/{file}",
        "question": QUESTION,
        "choices": list(LANGUAGES.values()),
        "answer": LANGUAGES[code],
    }
