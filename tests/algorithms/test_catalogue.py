"""`mmrl algorithms`: the list, one algorithm, and one evaluated on a case."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmrl import plugins
from mmrl.algorithms import SHARED
from mmrl.cli import main
from mmrl.stage import NEEDS
from tests.algorithms.cases import tokens


def test_every_algorithm_is_listed_with_stages_and_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["algorithms", "--json"]) == 0
    entries = {e["name"]: e for e in json.loads(capsys.readouterr().out)}
    assert set(entries) == set(plugins.available("algorithm"))
    assert not set(entries) & set(SHARED)
    assert {need for e in entries.values() for need in e["needs"]} <= set(NEEDS)
    assert entries["dapo"]["stages"] == [
        "shape",
        "edit",
        "credit",
        "refine",
        "objective",
        "reducer",
    ]
    assert entries["gigpo"]["needs"] == ["states", "turns"]
    assert entries["remax"]["needs"] == ["greedy", "reference"]


PUBLISHED = """
    grpo dr_grpo dapo gspo gspo_token cispo stepgrpo share_grpo rloo remax reinforce_pp
    reinforce_pp_baseline gpg opo cppo seed_grpo gvpo cpgd disco grpo_lead egsw ar_lopti ktae grpo_d
    ssb mpo ptst l_grpo ada_grpo degrpo gigpo turn_level arpo srpo balanced_filtering dump sari rcs
    s_grpo t_spmo raft raft_pp reinforce_rej nft a_star_po rebel intuitor otc brpo eis_grpo gvm_raft
    ppo vc_ppo vapo dpo ipo simpo two_sided
"""


def test_every_published_method_has_a_name() -> None:
    """RAFT's kin, PPO's and DPO's have one each; VerIPO's loop is a recipe of phases."""
    assert set(PUBLISHED.split()) <= set(plugins.available("algorithm"))


def test_one_algorithm_shows_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms", "dapo"]) == 0
    shown = capsys.readouterr().out
    assert "group_size = 16" in shown and "high=0.28" in shown and "arXiv 2503.14476" in shown


def test_a_case_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "case.json"
    case = {"groups": [tokens()], "params": {"credit": "raw", "kl_coefficient": 0.04}}
    file.write_text(json.dumps(case))
    assert main(["algorithms", "grpo", "--case", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["loss"] == pytest.approx(-0.040726, abs=1e-6)
    assert [len(row) for row in result["gradient"][0]] == [3, 2]
    assert main(["algorithms", "grpo", "--case", str(file)]) == 0
    assert "loss -0.040726" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"groups": 3}', "{}"])
def test_a_bad_case_is_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "case.json"
    file.write_text(text)
    assert main(["algorithms", "grpo", "--case", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_case_needs_an_algorithm(tmp_path: Path) -> None:
    assert main(["algorithms", "--case", str(tmp_path / "none.json")]) == 2
    assert main(["algorithms", "grpo", "--case", str(tmp_path / "none.json")]) == 2


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys; from mmrl.cli import main; main(['algorithms']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
