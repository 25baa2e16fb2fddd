"""Chat templates that write of a thought themselves: prompt, target, score and doctor agree."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mmrl.config import RunConfig
from mmrl.doctor.report import lines_of, plans
from mmrl.engines.engine import Sampling
from mmrl.engines.targets import Targets
from mmrl.model_config import ModelConfig
from mmrl.policy.encoder import Encoder
from mmrl.policy.model_folder import model_folder
from mmrl.policy.policy import load_policy
from mmrl.rewards.thoughts import EMPTY
from mmrl.scoring.groups import answer_of
from mmrl.scoring.tasks import fixture_path, load_task
from mmrl.types import Group
from tests.conftest import TINY

BEGIN = "<|im_start|>assistant\n"


def with_ending(folder: Path, ending: str) -> Path:
    """The tiny model with a chat template whose generation prompt goes on with `ending`."""
    shutil.copytree(model_folder(TINY), folder)
    template = folder / "chat_template.jinja"
    head, begin, tail = template.read_text().rpartition(BEGIN)
    template.write_text(f"{head}{begin}{ending}{tail}")
    return folder


@pytest.mark.parametrize(
    ("ending", "opening", "said"),
    [
        ("", "", ""), ("<think>\n", "<think>\n", "opens <think> itself"),
        ("<think>\n\n</think>\n\n", EMPTY, "closes an empty <think></think>"),
        ("\u25c1think\u25b7", "<think>\n", "opens <think> itself"),
    ],
)  # fmt: skip
def test_a_target_goes_on_where_the_template_stopped_and_earns_in_full(
    tmp_path: Path, ending: str, opening: str, said: str
) -> None:
    path = with_ending(tmp_path / "model", ending)
    policy = load_policy(ModelConfig(path=str(path)), torch.device("cpu"))
    task = load_task("faithful_qa")
    sample = task.sample(next(iter(task.records(fixture_path(task.name)))))
    prompt = Encoder(policy.family).prompt(sample)
    assert prompt.opening == opening
    engine = Targets(policy, {task.name: task})
    ((response,),) = engine.generate([prompt], [1], Sampling(max_new_tokens=1000), 0)
    assert (opening + response.text).count("<think>") == 1
    score = task.score(sample.gold, answer_of(Group(prompt, (response,), ()), response))
    assert score.parts["format"] == score.parts["accuracy"] == 1.0
    values = {
        "run": "unused", "model": {"path": str(path)}, "algorithm": {"name": "sft"},
        "data": {"task": "faithful_qa", "path": "unused"}, "trainer": {"steps": 1},
    }  # fmt: skip
    lines = "\n".join(lines_of(plans(RunConfig.model_validate(values))))
    assert said in lines and bool(said) == ("thoughts" in lines)
