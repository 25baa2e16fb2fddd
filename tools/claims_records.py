"""Records that claims train on besides those of the recipe `digits`, made beside them."""

from __future__ import annotations

import json
from pathlib import Path

from mmrl import plugins
from mmrl.evaluate.benchmark import EvalConfig
from mmrl.evaluate.pass_rates import rate
from mmrl.validation import validate

DIGITS = Path("data/digits")
COUNTED = DIGITS / "digit_count" / "train.jsonl"
PASSES = COUNTED.with_name("passes.jsonl")
ONE_PASS = COUNTED.with_name("one_pass.jsonl")
RATED = COUNTED.with_name("rated.jsonl")
RATED_RECORDS, RATED_SAMPLES = 800, 8


def make_records() -> None:
    """Make whatever is not there: digits, thoughts of several lengths, pass rates of the start."""
    if not COUNTED.is_file():
        plugins.load("recipe", "digits").build(None, DIGITS)
    for path, count in ((PASSES, 4), (ONE_PASS, 1)):
        if not path.is_file():
            _with_passes(path, count)
    if not RATED.is_file():
        asked = {
            "model": {"path": "asset:tiny_qwen2_5_vl"},
            "task": "digit_count",
            "data": str(COUNTED),
            "rollout": {"max_new_tokens": 8},
            "limit": RATED_RECORDS,
            "samples": RATED_SAMPLES,
        }
        rate(validate(EvalConfig, asked, "rated.jsonl"), RATED, overwrite=True)


def _with_passes(path: Path, count: int) -> None:
    """Counting records whose thoughts go over the rows 0 to `count` - 1 times, or once."""
    rows = [json.loads(line) for line in COUNTED.read_text(encoding="utf-8").splitlines()]
    text = "".join(
        json.dumps({**row, "passes": i % count if count > 1 else 1}) + "\n"
        for i, row in enumerate(rows)
    )
    path.write_text(text, encoding="utf-8")
