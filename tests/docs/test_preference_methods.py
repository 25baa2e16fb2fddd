"""The table of preference and value methods names every one there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from mmrl import plugins

TEXT = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
NEW = """
    apa bmc cgpo direct_advantage dmpo dno dr_po dvpo egpo exo f_dpg fixpo gpo gr_dpo h_dpo hypo
    inpo iterative_dpo kto mdpo modpo odpo p3o ppo_max rdpo rpo_regularised rpo_reward_aware rs_dpo
    rspo rto sdpo sppo sr_dpo tr_dpo wpo
"""


def test_the_table_names_every_method() -> None:
    table = TEXT.split("<!-- preference methods -->")[1].split("<!-- end of")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[2])}
    assert set(NEW.split()) <= named
    assert named <= set(plugins.available("algorithm"))
    assert {row[3].strip() for row in rows} == set("PWRDTV")


def test_colliding_names_are_told_apart() -> None:
    table = TEXT.split("### Names that mean several methods")[1].split("\n## ")[0]
    for name in ("RPO", "GRPO", "DAPO", "MDPO", "SDPO", "SRPO", "BRPO"):
        assert f"| {name} |" in table
