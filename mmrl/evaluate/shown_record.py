"""What a model would see of a record or of an episode's turn, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from mmrl import plugins
from mmrl.types import Media, MediaRef, Part, Sample, Text


def shown(sample: Sample, folder: Path, first: bool) -> Iterator[str]:
    """Write media into a folder and say where; the question first, then the last observation."""
    if first:
        if sample.system:
            yield f"system: {sample.system}"
        yield from _parts(sample.parts, folder)
    if sample.start is not None and not first:
        said = sample.start
        yield from [said.text] if said.text else []
        yield from _parts(said.parts, folder)
        if said.reward is not None:
            yield f"(earned {said.reward:g})"


def _parts(parts: Sequence[Part], folder: Path) -> Iterator[str]:
    for part in parts:
        yield part.text if isinstance(part, Text) else _medium(part, folder)


def _medium(ref: MediaRef, folder: Path) -> str:
    media: Media = plugins.load("modality", ref.kind).decode(ref)
    if media.array.ndim != 3:
        seconds = media.frame.seconds
        length = f" of {seconds[-1] - seconds[0]:.1f} s" if seconds else ""
        where = ref.source if isinstance(ref.source, str | Path) else "in the record"
        return f"[{ref.kind}{length}: {where}]"
    file = folder / f"{len(list(folder.iterdir())) + 1}.png"
    Image.fromarray(media.array).save(file)
    height, width = media.array.shape[:2]
    return f"[{ref.kind}, {width} x {height}: {file}]"
