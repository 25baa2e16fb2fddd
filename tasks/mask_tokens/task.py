"""Mask tokens (ALToLLM): a mask as a run of tokens, as few as will do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from mmrl import task as contract
from mmrl.records import file_source, media_source
from mmrl.rewards import masks
from mmrl.rewards.custom import load_callable
from mmrl.rewards.mask_codes import MaskCodes, load_codes
from mmrl.rewards.masks import RunLengths, read_mask, run_lengths
from mmrl.rewards.parsed import Parsed, ok
from mmrl.task import RewardPart
from mmrl.tasks.mask_tokens.decoder import CODEBOOK, decode_quadtree, encode_quadtree
from mmrl.types import Answer, Bools, MediaRef, Record, Sample, Score, Status, Text

START, END = "<ALTo_Start>", "<ALTo_End>"
SIDE = 256
MAX_CHARACTERS = 4_096

_TOKEN = re.compile(r"<TOK_([0-9]{1,6})>")
_REF = re.compile(r"<ref>([^<]{1,500})</ref>")


@dataclass(frozen=True)
class Task(contract.Task):
    """Mask IoU, a reward for order, and one for few tokens if its weight is set.

    `decoder` names a tokenizer that `tools/learn_mask_codes.py` has learnt (`codes.npz`), or a
    function f(token ids, side) -> bool mask [side, side]; `quadtree` needs neither. `codebook` is
    how many tokens a function knows. `variant` code pays what ALToLLM's script pays a broken
    answer.
    """

    decoder: str = "quadtree"
    max_tokens: int = 32
    codebook: int = CODEBOOK
    variant: Literal["strict", "code"] = "strict"

    name: ClassVar[str] = "mask_tokens"
    summary: ClassVar[str] = "a mask as a run of tokens of adaptive length, mask IoU"
    parts: ClassVar[dict[str, RewardPart]] = {
        "iou": RewardPart(0.0, 1.0),
        "format": RewardPart(0.0, 1.0, 0.4),
        "brevity": RewardPart(0.0, 1.0, 0.0),
    }
    metric: ClassVar[str] = "gIoU"

    def sample(self, record: Record) -> Sample:
        """Ask for the mask of a record's reference; `mask` is a picture of the image's size."""
        fields = record.fields
        reference = _REF.search(str(fields["conversations"][0]["value"]))
        if reference is None:
            raise ValueError("the conversation has no <ref>...</ref>")
        gold = run_lengths(read_mask(file_source(record, fields["mask"])))
        question = (
            f"Segment {reference[1]} in the picture. Write {START}, then up to {self.max_tokens}"
            f" mask tokens, as few as will do, then {END}, and nothing else."
        )
        return Sample(
            id=record.id,
            task=self.name,
            parts=(MediaRef("image", media_source(record, fields["image"])), Text(question)),
            gold=gold,
            meta={"intersection": 0, "union": gold.area},
        )

    def score(self, gold: RunLengths, answer: Answer) -> Score:
        """Check the run of tokens, decode it on a square and cut that to the picture."""
        checks, parsed = self._read(answer)
        tokens = parsed.value or ()
        found = self._decode(tokens, gold.size) if tokens else np.zeros(gold.size[::-1], dtype=bool)
        shared, union = masks.overlap(found, gold.mask())
        valid = parsed.status == "ok"
        overlap = masks.iou(shared, union) if valid else 0.0
        brevity = (self.max_tokens - len(tokens)) / (self.max_tokens - 1) if valid else 0.0
        formed = float(valid)
        if self.variant == "code" and not valid:
            # ALToLLM counts no tokens in a broken run, which earns it the longest bonus.
            formed, brevity = sum(checks) / 4, 1.0 if not (checks[0] and checks[1]) else 0.0
        return Score(
            {"iou": overlap, "format": formed, "brevity": brevity},
            metric=overlap,
            status=parsed.status,
            reason=parsed.reason,
            evidence={"intersection": shared, "union": union, "tokens": len(tokens)},
        )

    def breakdown(
        self, values: Sequence[float], metas: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """cIoU, and the mean number of tokens of an answer."""
        shared, union = (sum(meta[key] for meta in metas) for key in ("intersection", "union"))
        tokens = sum(meta.get("tokens", 0) for meta in metas) / len(metas)
        return {"cIoU": masks.iou(shared, union), "tokens": tokens}

    def target(self, sample: Sample, answer: Answer) -> str | None:
        """The fewest tokens that draw the gold mask; None with a function for a decoder."""
        if self.decoder != "quadtree" and self._codes is None:
            return None
        width, height = sample.gold.size
        side = max(width, height)
        square = np.zeros((side, side), dtype=bool)
        square[:height, :width] = sample.gold.mask()
        square = _resize(square, SIDE)
        known = self._codes
        tokens = encode_quadtree(square) if known is None else known.encode(square)
        return START + "".join(f"<TOK_{token}>" for token in tokens) + END

    def _read(self, answer: Answer) -> tuple[list[bool], Parsed[tuple[int, ...]]]:
        """The four checks of ALToLLM, and the tokens if the answer is one run and nothing else."""
        text = answer.text.strip()[: MAX_CHARACTERS + 1]
        starts, ends = text.count(START), text.count(END)
        inner = text.partition(START)[2].partition(END)[0] if starts and ends else ""
        tokens = [int(token) for token in _TOKEN.findall(inner)]
        most = self.codebook if self._codes is None else self._codes.size
        known = bool(tokens) and max(tokens) < most
        checks = [starts == 1, ends == 1, 1 <= len(tokens) <= self.max_tokens, known]
        if not starts and not ends:
            absent: Status = "truncated" if answer.truncated else "missing"
            return checks, Parsed(absent, None, f"no {START}")
        if starts > 1 or ends > 1:
            return checks, Parsed("multiple", None, "more than one run of tokens")
        if tokens and self._codes is not None and self._codes.decode(tokens, SIDE) is None:
            return checks, Parsed("malformed", None, "the tokens are not of the stages in order")
        written = START + "".join(f"<TOK_{token}>" for token in tokens) + END
        if not all(checks) or len(set(tokens)) != len(tokens) or written != text:
            broken: Status = "truncated" if answer.truncated and not ends else "malformed"
            return checks, Parsed(broken, None, "not one run of distinct tokens of the codebook")
        return checks, ok(tuple(tokens))

    def _decode(self, tokens: Sequence[int], size: tuple[int, int]) -> Bools:
        """The mask [H, W]: the decoder's square, resized to the longer side and cut."""
        if self.decoder == "quadtree":
            square = decode_quadtree(tokens, SIDE)
        elif self._codes is not None:
            drawn = self._codes.decode(tokens, SIDE)
            square = np.zeros((SIDE, SIDE), dtype=bool) if drawn is None else drawn
        else:
            square = np.asarray(
                load_callable(self.decoder, "mask decoder")(tokens, SIDE), dtype=bool
            )
        return _resize(square, max(size))[: size[1], : size[0]]

    @property
    def _codes(self) -> MaskCodes | None:
        return load_codes(self.decoder) if self.decoder.endswith(".npz") else None


def _resize(square: Bools, side: int) -> Bools:
    image = Image.fromarray(square.astype(np.uint8) * 255)
    return np.array(image.resize((side, side), Image.Resampling.NEAREST)) > 0
