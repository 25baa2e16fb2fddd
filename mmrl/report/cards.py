"""Groups of `rollouts.jsonl` as cards: what was asked and seen, what was said, earned, learned."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mmrl.report.drawing import Bar, Drawn, Mark, bars, drawn, marks_of, on_medium
from mmrl.runlog.rows import finite

MAX_TEXT = 12_000  # characters shown of one prompt or completion
MAX_GOLD = 1_000
MAX_RESPONSES = 32  # shown of one group, best and worst kept
MAX_SPANS = 1_500  # coloured spans of one completion
MAX_MEDIA = 12  # shown of one prompt, or before one turn
MAX_TURNS = 50  # shown of one episode
MAX_MEDIA_BYTES = 2_000_000  # of one embedded file
SIGNATURES = {".jpg": (b"\xff\xd8\xff", "image/jpeg"), ".wav": (b"RIFF", "audio/wav")}
THUMBNAIL = re.compile(r"media/[0-9A-Za-z_-]{1,128}\.(jpg|wav)")
PLACEHOLDER = re.compile(r"<[^<>\s]{2,62}>|\[[A-Z_]{3,62}\]")  # <|image_pad|>, [IMG]
MIN_FOLDED = 3  # the same placeholder this often in a row is written once, with its number
TINTS = 4  # strengths of the advantage colours in the style sheet
VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


@dataclass(frozen=True, slots=True)
class Picture:
    """An embedded medium; `captions` are the seconds of a sheet's frames.

    `drawn` lie over it, `bars` under it; each has the number of its completion, 0 is the gold's.
    """

    kind: str
    uri: str
    note: str
    captions: tuple[str, ...]
    drawn: tuple[Drawn, ...] = ()
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of an episode: what was shown before it, what was said, what that earned alone.

    `cut` if it is the last of an answer that ran out of tokens while it was written.
    """

    pictures: tuple[Picture, ...]
    said: str
    earned: float | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One response; `spans` are (text, tint class) where tokens have their own advantages.

    `turns` are those of an episode in which something was shown after the first; `after` is what
    the environment showed and said after the last of them.
    """

    number: int
    reward: float | None
    status: str
    reason: str
    truncated: bool
    length: int | None
    metric: float | None
    parts: tuple[tuple[str, float], ...]
    advantage: tuple[float, ...]  # nothing, one value, or the lowest and the highest
    text: str
    spans: tuple[tuple[str, str], ...]
    turns: tuple[Turn, ...] = ()
    after: Turn | None = None


@dataclass(frozen=True, slots=True)
class Card:
    step: int
    id: str
    task: str
    variant: str
    prompt: str
    gold: str
    pictures: tuple[Picture, ...]
    completions: tuple[Completion, ...]
    hidden: int  # completions left out
    mean: float | None
    spread: float


def card_of(row: Mapping[str, Any], run: Path) -> Card:
    """Read a line of `rollouts.jsonl`; fields that are missing or of another type are left out."""
    rows = list(enumerate(_objects(row.get("responses")), start=1))
    scale = max((abs(v) for _, r in rows for v in _advantages(r)), default=0.0)
    ranked = sorted(rows, key=lambda item: -_reward_or(item[1], float("-inf")))
    shown = ranked
    if len(ranked) > MAX_RESPONSES:
        shown = ranked[: MAX_RESPONSES // 2] + ranked[-MAX_RESPONSES // 2 :]
    media = _objects(row.get("media"))[:MAX_MEDIA]
    marks = marks_of(sorted(shown, key=lambda item: item[0]))
    rewards = [value for _, r in rows if (value := finite(r.get("reward"))) is not None]
    return Card(
        step=int(finite(row.get("step")) or 0),
        id=_clip(row.get("id"), 200),
        task=_clip(row.get("task"), 200),
        variant=_clip(row.get("variant"), 200),
        prompt=_clip(row.get("prompt")),
        gold=_gold(row.get("gold")),
        pictures=tuple(_pictures(media, run, marks)),
        completions=tuple(_completion(number, r, scale, run, len(media)) for number, r in shown),
        hidden=len(ranked) - len(shown),
        mean=sum(rewards) / len(rewards) if rewards else None,
        spread=max(rewards) - min(rewards) if rewards else 0.0,
    )


def order(count: int) -> Iterator[int]:
    """Yield every index below `count`: first, last, then between, evenly wherever one stops."""
    if count <= 0:
        return
    seen = {0, count - 1}
    yield 0
    if count > 1:
        yield count - 1
    gaps = 1
    while len(seen) < count:
        gaps *= 2
        for index in range(1, gaps):
            middle = index * (count - 1) // gaps
            if middle not in seen:
                seen.add(middle)
                yield middle


def _completion(
    number: int, row: Mapping[str, Any], scale: float, run: Path, asked: int
) -> Completion:
    parts = row.get("parts")
    marks = [*marks_of([(number, row)])]
    turns = tuple(_turns(row, run, marks, asked))
    asked += sum(len(turn.pictures) for turn in turns)
    values = _advantages(row)
    length = finite(row.get("length"))
    return Completion(
        number=number,
        reward=finite(row.get("reward")),
        status=_clip(row.get("status"), 40),
        reason=_clip(row.get("reason"), 500),
        truncated=row.get("finish") == "length",
        length=None if length is None else int(length),
        metric=finite(row.get("metric")),
        parts=tuple(_parts(parts) if isinstance(parts, dict) else ()),
        advantage=tuple(sorted({min(values), max(values)})) if values else (),
        text=_clip(row.get("text")),
        spans=tuple(_spans(row, scale)),
        turns=turns,
        after=_after(row, run, marks, asked),
    )


def _turns(row: Mapping[str, Any], run: Path, marks: Sequence[Mark], before: int) -> Iterator[Turn]:
    """The turns of an episode; media are numbered from those of the question, `before` them."""
    every = _objects(row.get("turns"))
    turns = every[:MAX_TURNS]
    if any(turn.get("media") for turn in turns):
        for number, turn in enumerate(turns, start=1):
            media = _objects(turn.get("media"))[:MAX_MEDIA]
            pictures = tuple(_pictures(media, run, marks, before))
            before += len(media)
            earned = finite(turn.get("earned"))
            # An environment that answered a turn has got it whole: its own words had no room.
            cut = row.get("finish") == "length" and number == len(every) and earned is None
            yield Turn(pictures, _clip(turn.get("said")), earned, cut)


def _after(row: Mapping[str, Any], run: Path, marks: Sequence[Mark], before: int) -> Turn | None:
    """What an environment showed and said after the last turn; None where that is not told."""
    after = row.get("after")
    if not isinstance(after, dict):
        return None
    media = _objects(after.get("media"))[:MAX_MEDIA]
    return Turn(tuple(_pictures(media, run, marks, before)), _clip(after.get("said")), None)


def _parts(parts: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in list(parts.items())[:32]:
        known = finite(value)
        if known is not None:
            yield _clip(name, 80), known


def _spans(row: Mapping[str, Any], scale: float) -> Iterator[tuple[str, str]]:
    """Join neighbouring tokens of one tint; nothing where advantages do not vary by token."""
    tokens, advantages = row.get("tokens"), row.get("advantages")
    if not isinstance(tokens, list) or not isinstance(advantages, list):
        return
    if len(tokens) != len(advantages) or scale == 0:
        return
    tinted = [(tint(finite(a), scale), str(t)) for t, a in zip(tokens, advantages, strict=True)]
    budget = MAX_TEXT
    for number, (name, run) in enumerate(groupby(tinted, key=lambda pair: pair[0])):
        text = visible("".join(_folded(piece for _, piece in run)))
        if len(text) > budget or number == MAX_SPANS:
            yield text[:budget] + " … (cut here)", name
            return
        budget -= len(text)
        yield text, name


def _folded(tokens: Iterable[str]) -> Iterator[str]:
    """Yield tokens, each run of one placeholder (a picture has one a patch) as its number."""
    for token, run in groupby(tokens):
        count = sum(1 for _ in run)
        if count >= MIN_FOLDED and PLACEHOLDER.fullmatch(token):
            yield f"{token} x {count}"
        else:
            yield token * count


def tint(advantage: float | None, scale: float) -> str:
    """Name the style class of an advantage: `up1`..`up4`, `down1`..`down4`, or none."""
    if advantage is None:
        return "untrained"
    strength = min(TINTS, round(TINTS * abs(advantage) / scale + 0.499))
    return f"{'up' if advantage > 0 else 'down'}{strength}" if strength else ""


def _pictures(
    media: Sequence[Mapping[str, Any]], run: Path, marks: Sequence[Mark], before: int = 0
) -> Iterator[Picture]:
    for place, medium in enumerate(media, before):
        own = on_medium(marks, place)
        kind = _clip(medium.get("kind"), 20)
        duration = finite(medium.get("duration"))
        size = medium.get("processed_size")
        note = kind
        if duration is not None:
            note = f"{kind}, {duration:.1f} s"
        elif isinstance(size, list) and len(size) == 2 and any(size):
            note = f"{kind}, seen at {size[0]} x {size[1]}"
        yield Picture(
            kind,
            _data_uri(medium.get("thumbnail"), run),
            _clip(note, 80),
            _times(medium),
            tuple(drawn(own, medium)),
            tuple(bars(own, medium)),
        )


def _times(medium: Mapping[str, Any]) -> tuple[str, ...]:
    shown, times = medium.get("shown"), medium.get("seconds")
    if not isinstance(shown, list) or not isinstance(times, list):
        return ()
    known = [finite(times[i]) for i in shown[:8] if isinstance(i, int) and 0 <= i < len(times)]
    return tuple("" if value is None else f"{value:.1f} s" for value in known)


def _data_uri(thumbnail: Any, run: Path) -> str:
    """Embed a file of the run's `media/`; anything outside it or of another type is not read."""
    if not isinstance(thumbnail, str) or not THUMBNAIL.fullmatch(thumbnail):
        return ""
    path = run / thumbnail
    signature, mime = SIGNATURES[path.suffix]
    if path.is_symlink() or not path.is_file():
        return ""
    payload = path.read_bytes() if path.stat().st_size <= MAX_MEDIA_BYTES else b""
    if not payload.startswith(signature):
        return ""
    return f"data:{mime};base64,{base64.b64encode(payload).decode()}"


def _advantages(row: Mapping[str, Any]) -> list[float]:
    found = row.get("advantages")
    values = found if isinstance(found, list) else [found]
    return [known for value in values if (known := finite(value)) is not None]


def _reward_or(row: Mapping[str, Any], default: float) -> float:
    known = finite(row.get("reward"))
    return default if known is None else known


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _gold(value: Any) -> str:
    return _clip(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), MAX_GOLD
    )


def _clip(value: Any, limit: int = MAX_TEXT) -> str:
    text = visible("" if value is None else str(value))
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit} more characters)"


def visible(text: str) -> str:
    """Replace control characters by their pictures, so that nothing hides in a text."""
    return text.translate(VISIBLE)
