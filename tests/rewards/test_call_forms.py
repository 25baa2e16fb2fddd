"""What reward functions of TRL and verl are called with, and what is made of what they return."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmrl.errors import ConfigError
from mmrl.scoring.pool import OUTSIDE, ScoreJob, Scorer, TaskSpec
from mmrl.scoring.tasks import Together, find_defect, load_task, resolve_weights, weigh
from mmrl.task import Moment
from mmrl.types import Answer, MediaRef, Record, Sample, Score

REWARDS = """
import asyncio

def longer_than_mean(prompts, completions, **columns):
    mean = sum(map(len, completions)) / len(completions)
    return [float(len(c) > mean) for c in completions]

def batch_size(completions):
    return [float(len(completions))] * len(completions)

def state(completions, trainer_state, **columns):
    return [trainer_state.global_step / trainer_state.max_steps] * len(completions)

def history(completions, trainer_state, **columns):
    return [float(len(trainer_state.log_history))] * len(completions)

def tokens(completions, completion_ids, **columns):
    return [float(sum(ids)) for ids in completion_ids]

def logs(completions, log_metric, log_extra, **columns):
    log_metric("mean_length", sum(map(len, completions)) / len(completions))
    log_extra("first", [c[:1] for c in completions])
    return [0.0] * len(completions)

def logs_too_few(completions, log_extra, **columns):
    log_extra("first", ["a"])
    return [0.0] * len(completions)

def red(prompts, completions, image, **columns):
    return [float(picture.convert("RGB").getpixel((0, 0))[0]) for picture in image]

def reds(completions, images, **columns):
    return [float(sum(p.convert("RGB").getpixel((0, 0))[0] for p in ps)) for ps in images]

def columns_alone(completions, **columns):
    return [float(columns["image"][0].size[0])] * len(completions)

def in_the_prompt(prompts, completions, **columns):
    first, text = prompts[0][0]["content"]
    assert text == {"type": "text", "text": "Which?"}, text
    return [float(first["image"].size[0])] * len(completions)

async def waits(prompts, completions, answer, **columns):
    await asyncio.sleep(0)
    return [float(c == a) for c, a in zip(completions, answer)]

class Grader:
    async def __call__(self, completions, **columns):
        return [7.0] * len(completions)

grader = Grader()

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    assert (data_source, extra_info) == ("geo", {"split": "train"}), (data_source, extra_info)
    return {"score": float(solution_str == ground_truth), "acc": 0.5, "pred": solution_str}

def compute_scores(data_sources, solution_strs, ground_truths, extra_infos):
    return [float(s == g) for s, g in zip(solution_strs, ground_truths)]

async def compute_score_async(data_source, solution_str, ground_truth, extra_info):
    if solution_str == "bad":
        raise RuntimeError("cannot read it")
    return float(solution_str == ground_truth)

def one_fails(data_source, solution_str, ground_truth, extra_info=None):
    if solution_str == "bad":
        raise RuntimeError("cannot read it")
    return 1.0

def short(completions, **columns):
    return [1.0 / len(c) for c in completions]

def not_for_b(completions, **columns):
    return [None if c == "b" else 2.0 for c in completions]

def never(completions, **columns):
    return [None] * len(completions)

def mean(completions, **columns):
    return [0.0] * len(completions)

def of_numpy(completions, **columns):
    import numpy as np
    return np.ones(len(completions), np.float32)

def solution_by_another_name(completions, solution):
    return [float(c == s) for c, s in zip(completions, solution)]
"""


@pytest.fixture(scope="module", autouse=True)
def user_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("forms")
    (folder / "forms.py").write_text(REWARDS)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def params_of(*functions: str, **params: Any) -> dict[str, Any]:
    names = [f"forms:{name}" for name in functions]
    return {"function": names[0] if len(names) == 1 else names, **params}


def asked(params: dict[str, Any], fields: dict[str, Any], root: Path = Path(".")) -> Sample:
    return load_task("custom", params).ask(Record("1", fields, root))


def scored(
    params: dict[str, Any],
    groups: list[tuple[Sample, list[Answer]]],
    moment: Moment = OUTSIDE,
    weights: dict[str, float] | None = None,
) -> list[Score]:
    """What a worker's calls say, without its process."""
    task = load_task("custom", params)
    known = resolve_weights(task, weights or {})
    calls = [Together("c", (s.gold,) * len(a), tuple(a), moment) for s, a in groups]
    found = [score for call in calls for score in call.scores(task)]
    assert not any(find_defect(task, s) for s in found if s.status != "unscorable")
    return [s if s.status == "unscorable" else weigh(s, known) for s in found]


def rewards(
    *functions: str, texts: str = "a b", fields: dict[str, Any] | None = None, **more: Any
) -> list[float | None]:
    params = params_of(*functions)
    sample = asked(params, fields or {"prompt": "p"}, more.pop("root", Path(".")))
    answers = [Answer(text) for text in texts.split()]
    return [score.reward for score in scored(params, [(sample, answers)], **more)]


def picture(path: Path, red: int, width: int = 8) -> None:
    Image.fromarray(np.full((8, width, 3), (red, 0, 0), np.uint8)).save(path)


def test_a_function_sees_its_group_and_no_other_unless_it_is_told_to() -> None:
    specs = {
        "mean": TaskSpec("custom", params_of("longer_than_mean")),
        "answer": TaskSpec("custom", params_of("batch_size", per="answer")),
        "batch": TaskSpec("custom", params_of("batch_size", per="batch")),
        "state": TaskSpec("custom", params_of("state")),
        "raises": TaskSpec("custom", params_of("logs_too_few")),
    }
    gold = asked(specs["mean"].params, {"prompt": "p"}).gold
    texts = [("a", "abc"), ("x" * 50, "y" * 70)]
    jobs = [
        ScoreJob(key, gold, Answer(text), group=i)
        for key in specs
        for i, pair in enumerate(texts)
        for text in pair
    ]
    with Scorer(specs, workers=1, timeout_seconds=20.0) as scorer:
        found = scorer.score(jobs, Moment(3, 12))
        counts = scorer.counts
    rewards = [score.reward for score in found]
    # Means are 2 and 60; alone every answer is its own mean, together the mean is 31.
    assert rewards[:4] == [0.0, 1.0, 0.0, 1.0]
    assert rewards[4:8] == [1.0] * 4
    assert rewards[8:12] == [4.0] * 4
    assert rewards[12:16] == [0.25] * 4
    assert rewards[16:] == [None] * 4 and counts == {"exception": 4}
    assert "log_extra('first') has 1 values for 2" in found[-1].reason


def test_the_state_of_the_training_and_the_tokens() -> None:
    assert rewards("state", moment=Moment(3, 12)) == [0.25, 0.25]
    params = params_of("tokens")
    answers = [Answer("a", ids=(1, 2)), Answer("b", ids=(40,))]
    found = scored(params, [(asked(params, {"prompt": "p"}), answers)])
    assert [score.reward for score in found] == [3.0, 40.0]


def test_what_the_state_lacks_is_said() -> None:
    params = params_of("history")
    with pytest.raises(AttributeError, match="global_step and max_steps, and no 'log_history'"):
        scored(params, [(asked(params, {"prompt": "p"}), [Answer("a")])])


def test_what_it_logs_is_kept_with_the_answers() -> None:
    params = params_of("logs")
    sample = asked(params, {"prompt": "p"})
    found = scored(params, [(sample, [Answer("a"), Answer("xyz")])])
    assert [dict(score.logged) for score in found] == [
        {"mean_length": 2.0, "first": "a"},
        {"mean_length": 2.0, "first": "x"},
    ]


def test_pictures_are_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 17)
    picture(tmp_path / "b.png", 40, width=9)
    one = {"prompt": "p", "image": "a.png"}
    assert rewards("red", fields=one, root=tmp_path) == [17.0, 17.0]
    shown = MediaRef("image", tmp_path / "a.png")
    assert shown in asked(params_of("red"), one, tmp_path).parts  # to the model, too
    assert rewards("columns_alone", fields=one, root=tmp_path) == [8.0, 8.0]
    two = {"prompt": "p", "images": ["a.png", "b.png"]}
    assert rewards("reds", fields=two, root=tmp_path) == [57.0, 57.0]
    held = {"prompt": "p", "image": {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}}
    assert rewards("red", fields=held, root=tmp_path) == [17.0, 17.0]


@pytest.mark.parametrize(
    "content", ["Which?", [{"type": "image"}, {"type": "text", "text": "Which?"}]]
)
def test_messages_hold_their_pictures(content: Any, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 17)
    fields = {"prompt": [{"role": "user", "content": content}], "image": "a.png"}
    assert rewards("in_the_prompt", fields=fields, root=tmp_path) == [8.0, 8.0]


def test_asynchronous_functions() -> None:
    fields = {"prompt": "p", "answer": "b"}
    assert rewards("waits", fields=fields) == [0.0, 1.0]
    assert rewards("grader") == [7.0, 7.0]


VERL = {
    "prompt": [{"role": "user", "content": "Which?"}],
    "data_source": "geo",
    "reward_model": {"style": "rule", "ground_truth": "b"},
    "extra_info": {"split": "train"},
}


@pytest.mark.parametrize("function", ["compute_score", "compute_scores", "compute_score_async"])
def test_verls_forms(function: str) -> None:
    assert rewards(function, fields=VERL) == [0.0, 1.0]


def test_verls_further_values_are_logged() -> None:
    params = params_of("compute_score")
    (score,) = scored(params, [(asked(params, VERL), [Answer("b")])])
    assert dict(score.logged) == {"acc": 0.5, "pred": "b"}


@pytest.mark.parametrize("function", ["one_fails", "compute_score_async"])
def test_an_answer_that_is_graded_alone_fails_alone(function: str) -> None:
    fields = {**VERL, "reward_model": {"ground_truth": "a"}}
    assert rewards(function, texts="a bad a", fields=fields) == [1.0, None, 1.0]


def test_several_functions_are_parts_with_weights() -> None:
    params = params_of("short", "batch_size")
    sample = asked(params, {"prompt": "p"})
    found = scored(params, [(sample, [Answer("ab"), Answer("abcd")])], weights={"batch_size": 0.1})
    assert [dict(score.parts) for score in found] == [
        {"short": 0.5, "batch_size": 2.0},
        {"short": 0.25, "batch_size": 2.0},
    ]
    assert [score.reward for score in found] == [pytest.approx(0.7), pytest.approx(0.45)]
    assert [score.metric for score in found] == [0.5, 0.25]  # the first function's
    with pytest.raises(ConfigError, match="no reward part 'long'; known: short, batch_size"):
        scored(params, [], weights={"long": 1.0})


def test_a_part_that_does_not_apply_adds_nothing_and_no_part_is_no_score() -> None:
    # As TRL adds them up: nansum over the functions, NaN where none applies.
    assert rewards("short", "not_for_b") == [3.0, 1.0]
    assert rewards("never", "not_for_b") == [2.0, None]


def test_names_of_parts_are_refused_early() -> None:
    for functions, message in (
        (("short", "short"), "two reward functions are called 'short'"),
        (("short", "mean"), "'mean' is a name of a metric"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_task("custom", params_of(*functions))


def test_arrays_and_missing_names() -> None:
    assert rewards("of_numpy") == [1.0, 1.0]
    assert rewards("solution_by_another_name", fields={"prompt": "p", "answer": "b"}) == [0.0, 1.0]
