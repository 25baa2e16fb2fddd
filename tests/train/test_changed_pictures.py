"""Share-GRPO trains on real tasks whose pictures are changed: geometry, charts, counting, boxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrl import api
from mmrl.runlog.journal import Journal
from mmrl.scoring.tasks import fixture_path
from tests.conftest import TINY

TURNS = ["mirror", "rotate_90_cw", "rotate_180", "upside_down"]
KINDS = {"noise_25", "blur_1", *TURNS}


@pytest.mark.parametrize(
    "task", ["geometry3k", "chart_qa", "counting", "detection", "referring_box"]
)
def test_variants_with_changed_pictures_are_trained(task: str, tmp_path: Path) -> None:
    api.train(
        {
            "run": str(tmp_path / "run"),
            "model": {"path": TINY, "max_prompt_tokens": 2048},
            "data": {"task": task, "path": str(fixture_path(task))},
            "algorithm": {
                "name": "share_grpo",
                "variants": 3,
                "group_size": 2,
                "changes": ["noise_25", "blur_1", *TURNS],
            },
            "rollout": {"max_new_tokens": 4, "scoring_workers": 1},
            "trainer": {"steps": 2, "prompts_per_step": 2},
        }
    )
    groups = list(Journal(tmp_path / "run" / "rollouts.jsonl").rows())
    variants = {group["variant"] for group in groups}
    assert len(groups) == 12 and "" in variants and len(variants - {""}) >= 2
    assert variants - {""} <= (
        KINDS if task not in ("geometry3k", "chart_qa") else KINDS - {*TURNS}
    )
    of_one = [group for group in groups if (group["step"], group["id"]) == (1, groups[0]["id"])]
    assert len({medium["hash"] for group in of_one for medium in group["media"]}) == 3
