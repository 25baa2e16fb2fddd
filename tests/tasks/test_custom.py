from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmrl.errors import UserError
from mmrl.scoring.pool import ScoreJob, Scorer, TaskSpec
from mmrl.scoring.tasks import load_task
from mmrl.types import Answer, MediaRef, Record, Text

REWARDS = """
def length(prompts, completions, **columns):
    return [float(len(completion)) for completion in completions]

def contract(prompts, completions, answer, level):
    assert (prompts, completions) == (["2 + 3?"], ["5"]), (prompts, completions)
    assert (answer, level) == (["5"], [3])
    return [0.25]

def conversation(prompts, completions, **columns):
    assert prompts == [[{"role": "user", "content": "Hi"}]]
    assert completions == [[{"role": "assistant", "content": "Hello"}]]
    return [1.0]

def undecided(prompts, completions, **columns):
    return [None]

def two(prompts, completions, **columns):
    return [1.0, 2.0]

def nan(prompts, completions, **columns):
    return [float("nan")]

not_callable = 3
"""


@pytest.fixture(scope="module", autouse=True)
def user_package(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("user")
    (folder / "user_rewards.py").write_text(REWARDS)
    (folder / "broken_rewards.py").write_text("import no_such_dependency\n")
    sys.path.insert(0, str(folder))


def run(function: str, text: str, **fields: object) -> tuple[float | None, str]:
    params = {"function": f"user_rewards:{function}"}
    sample = load_task("custom", params).ask(Record("1", fields, Path(".")))
    with Scorer({"c": TaskSpec("custom", params)}, workers=1, timeout_seconds=5.0) as scorer:
        (score,) = scorer.score([ScoreJob("c", sample.gold, Answer(text))])
    return score.reward, score.reason


def test_function_gets_prompts_completions_and_columns() -> None:
    assert run("contract", "5", prompt="2 + 3?", answer="5", level=3, image="a.png")[0] == 0.25
    assert run("length", "hello", prompt="p", anything=[1])[0] == 5.0


def test_messages_in_messages_out() -> None:
    assert run("conversation", "Hello", prompt=[{"role": "user", "content": "Hi"}])[0] == 1.0


def test_none_is_unscorable_and_so_is_nonsense() -> None:
    assert run("undecided", "a", prompt="p") == (None, "task: user_rewards:undecided returned None")
    assert run("two", "a", prompt="p")[1].startswith("exception: ValueError: reward function")
    assert run("nan", "a", prompt="p") == (None, "defect: task 'c' returned part 'reward' is nan")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("user_rewards", "write it as package.module:function"),
        ("rewards.py:f", "no file at /.*rewards.py"),
        ("user_rewards:lenght", "has no function 'lenght'"),
        ("user_rewards:not_callable", "has no function"),
        ("broken_rewards:f", "no_such_dependency"),
    ],
)
def test_a_function_that_cannot_be_imported_is_a_users_error(function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task("custom", {"function": function})


def test_function_is_required() -> None:
    with pytest.raises(UserError, match="needs the parameter 'function'"):
        load_task("custom")


def test_prompts_and_images_are_asked(tmp_path: Path) -> None:
    task = load_task("custom", {"function": "user_rewards:length"})
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "See <image>"}]
    sample = task.ask(Record("1", {"prompt": turns, "image": "a.png", "target": "t"}, tmp_path))
    assert sample.system == "Be brief."
    assert sample.parts == (Text("See "), MediaRef("image", tmp_path / "a.png"))
    assert task.completion(sample, Answer("")) == "t"
    assert sample.gold["columns"] == {"target": "t"}
    for prompt in ([{"role": "assistant", "content": "a"}], [turns[1], turns[1]], []):
        with pytest.raises(ValueError, match=r"no user turn|0 images|neither a text"):
            task.ask(Record("1", {"prompt": prompt}, tmp_path))
