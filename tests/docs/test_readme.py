"""The README's table of families says what `mmrl families` says."""

from __future__ import annotations

import re
from pathlib import Path

from mmrl import plugins
from mmrl.policy.family import Declaration

README = Path(__file__).parents[2] / "README.md"
SEEN = ("image", "screenshot", "video", "audio")
HEAD = ("family", *SEEN, "video with its sound", "shared prefix", "vLLM", "LoRA")


def row(name: str, declared: Declaration) -> tuple[str, ...]:
    marks = [kind in declared.takes for kind in SEEN]
    marks += [declared.video_sound, declared.shared_prefix]
    vllm = "all" if set(declared.vllm) == set(declared.takes) else ", ".join(declared.vllm)
    lora = bool(declared.lora_targets or declared.lora_parameters)
    cells = ["yes" if mark else "-" for mark in marks]
    return (f"`{name}`", *cells, vllm or "-", "yes" if lora else "-")


def test_the_table_of_families_is_that_of_their_declarations() -> None:
    rows = [
        row(name, plugins.load("family", name).DECLARATION)
        for name in sorted(plugins.available("family"))
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, *rows)]
    lines.insert(1, "|---" * len(HEAD) + "|")
    written = re.search(r"^\| family .*(?:\n\|.*)*", README.read_text("utf-8"), re.MULTILINE)
    assert written is not None
    assert written[0].splitlines() == lines, "\n".join(lines)
