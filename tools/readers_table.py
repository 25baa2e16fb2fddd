"""The table of docs/modalities.md: which frames every reader shows of every kind of clip.

    python tools/readers_table.py            # writes it; needs PyAV, torchcodec and decord

The clips and the judgement are those of the tests (tests/modalities/clips.py). torchcodec is given
the FFmpeg libraries that come with PyAV.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmrl.modalities import readers  # noqa: E402
from tests.modalities.clips import judge_elsewhere, table  # noqa: E402

PAGE = ROOT / "docs" / "modalities.md"
TABLE = re.compile(r"^\| container \| codec .*?\n(?=\n)", re.MULTILINE | re.DOTALL)

if __name__ == "__main__":
    made = table([judge_elsewhere(name) for name in readers.ORDER])
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: made + "\n", page), encoding="utf-8")
    print(made)
