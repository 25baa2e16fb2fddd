"""R1-VL's layout: what stands in the final section counts, and nothing else."""

from __future__ import annotations

import pytest

from mmrl.rewards.stepwise import accuracy


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("### Step 1: 80\n### The final answer is: 80.", 1.0),
        ("### The Final Answer is: (B)", 0.0),
        ("### Step 1: it is 80\n### The final answer is: 180", 0.0),
        ("### Step 1: it is 80", 0.0),
        ("### The final answer is:", 0.0),
        ("### The final answer is: 3\n### The final answer is: 80", 1.0),
        ("", 0.0),
    ],
)
def test_the_final_section_is_read(completion: str, expected: float) -> None:
    assert accuracy(prompts=["?"], completions=[completion], answer=["80"]) == [expected]
