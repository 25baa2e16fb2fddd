"""What the model saw, said and earned: one line of `rollouts.jsonl` per group, plus thumbnails."""

from __future__ import annotations

import io
import os
import re
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmrl.frame import Frame, Mark
from mmrl.runlog.journal import Journal
from mmrl.types import (
    EncodedMedium,
    Episode,
    Floats,
    Group,
    Media,
    Prompt,
    Response,
    Score,
    TrainSample,
)

THUMBNAIL_SIDE = 384  # pixels of the longer side
SHEET_FRAMES, SHEET_COLUMNS = 8, 2  # of a video's contact sheet, row by row
SHEET_GAP = 4  # pixels between its frames
SHEET_FRAME_SIDE = 192  # pixels of the longer side of one of its frames
JPEG_QUALITY = 82
AUDIO_SECONDS = 10.0
DEFAULT_SAMPLE_RATE = 16_000  # where a Frame does not say how long the audio is


@dataclass(frozen=True, slots=True)
class Entry:
    """One group as it is written down.

    `prompt` is the decoded prompt. `media` holds decoded media by hash; a medium that is not in
    it is described without a thumbnail, unless an earlier group wrote one. `advantages` and
    `tokens` have one item per response, each [T], or are empty; a NaN advantage is a token that
    is not trained.
    """

    group: Group
    prompt: str
    media: Mapping[str, Media] = field(default_factory=dict)
    advantages: Sequence[Floats | None] = ()
    tokens: Sequence[Sequence[str]] = ()


class Transcript:
    """Writes a run's `rollouts.jsonl` and `media/`."""

    def __init__(self, run: Path) -> None:
        self._journal = Journal(run / "rollouts.jsonl")
        self._thumbnails = Thumbnails(run)

    def write(self, step: int, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        """Append a step's groups in one write, thumbnails first, so that no line points nowhere.

        Returns the lines.
        """
        lines = [self._line(step, entry) for entry in entries]
        self._journal.append(lines)
        return lines

    def lacks(self, medium: EncodedMedium) -> bool:
        """True if no thumbnail of this medium has been written yet."""
        return self._thumbnails.lacks(medium)

    def truncate_to_step(self, step: int) -> None:
        """Drop the groups of later steps, before a run resumes from `step`."""
        self._journal.truncate_to_step(step)

    def _line(self, step: int, entry: Entry) -> dict[str, Any]:
        group = entry.group
        sample = group.prompt.sample
        count = len(group.responses)
        advantages = entry.advantages or [None] * count
        tokens = entry.tokens or [()] * count
        rows = zip(group.responses, group.scores, advantages, tokens, strict=True)
        return {
            "step": step,
            "id": sample.id,
            "task": sample.task,
            "variant": sample.variant,
            "prompt": entry.prompt,
            "media": [self._thumbnails.describe(e, entry.media) for e in group.prompt.media],
            "gold": sample.gold,
            "responses": [self._response(entry, *row) for row in rows],
        }

    def _response(
        self,
        entry: Entry,
        response: Response,
        score: Score,
        advantages: Floats | None,
        tokens: Sequence[str],
    ) -> dict[str, Any]:
        row = _response(response, score, advantages, tokens)
        frames = _frames(entry.group.prompt, response)
        row["marks"] = marks_on(_on_screens(score.marks, entry.group.prompt, response), frames)
        if response.observed is not None:
            row["turns"] = [{**turn, "media": []} for turn in row["turns"]]
            shown = zip(response.observed.media, response.observed.turns, strict=True)
            for medium, number in shown:
                described = self._thumbnails.describe(medium, entry.media)
                row["turns"][number]["media"].append(described)
        return row


class Thumbnails:
    """Small files that stand for media, in a folder's `media/`, each written once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def lacks(self, medium: EncodedMedium) -> bool:
        """True if no thumbnail of this medium has been written yet."""
        return not (self._folder / _file(medium)).exists()

    def describe(self, encoded: EncodedMedium, media: Mapping[str, Media]) -> dict[str, Any]:
        """Describe a medium; if it is among the decoded `media`, by hash, write its thumbnail."""
        file = _file(encoded)
        path = self._folder / file
        medium = media.get(encoded.hash)
        if medium is not None and not path.exists():
            _write_whole(path, preview(medium))
        described: dict[str, Any] = {
            "kind": encoded.kind,
            "hash": encoded.hash,
            "thumbnail": file if path.exists() else None,
            "source_size": encoded.frame.source_size,
            "processed_size": encoded.frame.processed_size,
            "tokens": encoded.num_tokens,
            "seconds": encoded.frame.seconds,
        }
        if encoded.kind == "video":
            frames = len(medium.array) if medium is not None else len(encoded.frame.seconds)
            described["shown"] = sheet_indices(frames)
        if encoded.kind == "audio" and medium is not None:
            described["duration"] = len(medium.array) / sample_rate(medium)
        return described


def advantages_of(
    groups: Sequence[Group], samples: Sequence[TrainSample]
) -> list[tuple[Floats | None, ...]]:
    """Find the advantages [T] of a step's responses under their own prompts, group by group.

    None where a response is not trained; tokens outside the loss mask are NaN. A response that is
    trained only under another prompt (Share-GRPO) shows the advantages it has there.
    """
    homes: dict[tuple[int, int], TrainSample] = {}
    for own in (True, False):
        for sample in samples:
            if (sample.prompt is groups[sample.origin[0]].prompt) == own:
                homes.setdefault(sample.origin, sample)
    shown = {o: np.where(s.mask, s.advantages, np.nan) for o, s in homes.items()}
    return [
        tuple(shown.get((place, i)) for i in range(len(group.responses)))
        for place, group in enumerate(groups)
    ]


def _response(
    response: Response, score: Score, advantages: Floats | None, tokens: Sequence[str]
) -> dict[str, Any]:
    return {
        "text": response.text,
        **({"tokens": list(tokens)} if tokens else {}),
        "length": len(response.ids),
        "finish": response.finish,
        **({} if response.policy_version is None else {"policy_version": response.policy_version}),
        "reward": score.reward,
        "parts": score.parts,
        "status": score.status,
        "reason": score.reason,
        "metric": score.metric,
        **({"logged": score.logged} if score.logged else {}),
        "advantages": _compact(advantages),
        **({"turns": _turns(response.episode)} if response.episode else {}),
        **({"branches": _branches(response)} if response.branches else {}),
    }


def _branches(response: Response) -> list[dict[str, Any]]:
    """What was said in an episode from other prompts than its group's."""
    return [
        {
            "begins": len(prompt.ids),
            "length": len(part.ids),
            "turns": _turns(part.episode),
            **({"left_out": part.episode.left_out} if part.episode.left_out else {}),
        }
        for prompt, part in response.branches
        if part.episode is not None
    ]


def _frames(prompt: Prompt, response: Response) -> tuple[Frame, ...]:
    """Of all media of an answer: those of the question, then those shown in later turns."""
    later = response.observed.media if response.observed is not None else ()
    return (*prompt.frames, *(medium.frame for medium in later))


def _on_screens(marks: Sequence[Mark], prompt: Prompt, response: Response) -> list[Mark]:
    """Marks of turns on the media that were seen last when those were written."""
    asked, observed = len(prompt.media), response.observed
    found = []
    for mark in marks:
        if mark.turn is not None:
            before = observed.turns if observed is not None else ()
            later = sum(number <= mark.turn for number in before)
            mark = replace(mark, medium=asked + later - 1)
        found.append(mark)
    return found


def marks_on(marks: Sequence[Mark], frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """A score's marks as they lie on the thumbnails of its answer's media, in 0-1."""
    return [
        {
            **asdict(mark),
            "numbers": [round(number, 5) for number in frames[mark.medium].in_unit(mark)],
        }
        for mark in marks
        if 0 <= mark.medium < len(frames)
    ]


def _turns(episode: Episode) -> list[dict[str, Any]]:
    return [
        {"tokens": [t.start, t.end], "said": said, "earned": t.value, "state": t.state}
        for t, said in zip(episode.turns, episode.said, strict=True)
    ]


def _compact(advantages: Floats | None) -> float | list[float] | None:
    if advantages is None or len(advantages) == 0:
        return None
    if np.all(advantages == advantages[0]):
        return float(advantages[0])
    return [float(value) for value in np.round(advantages, 6)]


def _file(medium: EncodedMedium) -> str:
    return f"media/{file_stem(medium.hash)}{'.wav' if medium.kind == 'audio' else '.jpg'}"


def file_stem(media_hash: str) -> str:
    """Name a medium's file by its hash; a hash that is no plain name is hashed once more."""
    if re.fullmatch(r"[0-9A-Za-z_-]{1,128}", media_hash):
        return media_hash
    return sha256(media_hash.encode("utf-8", "backslashreplace")).hexdigest()


def preview(medium: Media) -> bytes:
    """Make the small file that stands for a medium: a JPEG, or a WAV for audio."""
    makers: dict[str, Callable[[Media], bytes]] = {"audio": _wav, "video": _sheet}
    return makers.get(medium.kind, _thumbnail)(medium)


def _thumbnail(medium: Media) -> bytes:
    image = Image.fromarray(medium.array)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return _jpeg(image)


def _sheet(medium: Media) -> bytes:
    frames = [Image.fromarray(medium.array[index]) for index in sheet_indices(len(medium.array))]
    for frame in frames:
        frame.thumbnail((SHEET_FRAME_SIDE, SHEET_FRAME_SIDE), Image.Resampling.LANCZOS)
    width, height = frames[0].size
    across, down = width + SHEET_GAP, height + SHEET_GAP
    columns = min(SHEET_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (across * columns - SHEET_GAP, down * rows - SHEET_GAP), "white")
    for index, frame in enumerate(frames):
        sheet.paste(frame, (index % columns * across, index // columns * down))
    return _jpeg(sheet)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _wav(medium: Media) -> bytes:
    rate = sample_rate(medium)
    samples: npt.NDArray[Any] = medium.array[: int(AUDIO_SECONDS * rate)]
    pcm = (np.clip(np.nan_to_num(samples), -1.0, 1.0) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()


def sample_rate(medium: Media) -> int:
    """Samples a second of an audio medium, from the segment its Frame says it covers."""
    if len(medium.frame.seconds) == 2:
        start, end = medium.frame.seconds
        if end > start:
            return max(1, round(len(medium.array) / (end - start)))
    return DEFAULT_SAMPLE_RATE


def sheet_indices(frames: int) -> list[int]:
    """Choose the frames a video's sheet shows: evenly spaced, first and last included."""
    shown = min(frames, SHEET_FRAMES)
    return [int(index) for index in np.linspace(0, frames - 1, shown).round()]


def _write_whole(path: Path, payload: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".tmp")
    half.write_bytes(payload)
    os.replace(half, path)
