"""Rolling out ahead: which weights sample what, that it overlaps, resumes and stops."""

from __future__ import annotations

import copy
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmrl.algorithm import Algorithm
from mmrl.algorithms.stages.credit import FixedGroup, GroupCredit, GroupRelative
from mmrl.engines.background import Stopped, Worker
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.objectives.clipped_ratio import Clipped
from mmrl.policy.attention import active_layout, attention
from mmrl.policy.buckets import named
from mmrl.policy.policy import load_policy
from mmrl.policy.shared_prefix import SharedRow, lay_out
from mmrl.runlog.journal import Journal
from mmrl.train.correction import Correction, correct
from mmrl.train.learner import Learner
from mmrl.train.old_logprobs import compared_with
from mmrl.train.run import train
from mmrl.train.stopping import SAME_PRESS_SECONDS
from mmrl.types import Group, Prompt, Response, Score
from tests.conftest import TINY
from tests.rollout.overlapping import ahead, fingerprint, start, watch
from tests.runs import make_digits

STEPS = 6
EVERY = {"checkpoint_every": 1, "keep_checkpoints": 99}
NO_PARITY = {"parity_every": 0}
SIDES = ("trainer", "engine")
DAPO = {"name": "dapo", "group_size": 4}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("overlap") / "digits")


def rows(run: Path, name: str = "metrics") -> list[dict[str, Any]]:
    return list(Journal(run / f"{name}.jsonl").rows())


def weights_after(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")


def same(one: Path, other: Path, step: int) -> bool:
    first, second = weights_after(one, step), weights_after(other, step)
    return all(torch.equal(first[name], second[name]) for name in first)


def said(run: Path) -> list[Any]:
    """Everything that was asked and answered, and what it earned."""
    return [
        (
            row["step"],
            row["id"],
            [(r["text"], r["reward"], r["policy_version"]) for r in row["responses"]],
        )
        for row in rows(run, "rollouts")
    ]


Weighted = list[dict[str, torch.Tensor]]


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> Weighted:
    """The policy's weights after every update of the runs to come.

    A checkpoint says them too, but waits for all that is under way.
    """
    update, found = Learner.update, Weighted()

    def noting(self: Learner, *args: Any) -> Any:
        stats = update(self, *args)
        # What is tied stays so.
        found.append(copy.deepcopy({n: w.detach() for n, w in named(self._policy.weights())}))
        return stats

    monkeypatch.setattr(Learner, "update", noting)
    return found


def gap(
    weights: dict[str, torch.Tensor], prompts: Sequence[Prompt], made: list[list[Response]]
) -> float:
    """How far what sampled these reported from what a trainer with the weights says of them."""
    policy = load_policy(ModelConfig(path=TINY))
    policy.model.load_state_dict(weights)
    layout = lay_out(
        [SharedRow(p, tuple(r.ids for r in g)) for p, g in zip(prompts, made, strict=True)],
        policy.device,
    )
    with active_layout(layout), torch.no_grad():
        wanted, _ = policy.logprobs(layout, prompts, 1.0)
    found = np.concatenate([r.logprobs for group in made for r in group])
    return float(np.abs(found - wanted.numpy()).max())


@pytest.mark.parametrize("staleness", [1, 2, 3, 4])
def test_a_step_is_sampled_by_the_weights_of_so_many_steps_before(
    tmp_path: Path,
    digits: Path,
    staleness: int,
    learnt: Weighted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the engine is the slower side, so that weights are handed over while it works.

    Or while it loads those of an earlier step, which takes the longest here.
    """
    engines = watch(monkeypatch, loading=lambda: time.sleep(0.8))
    steps = staleness + 5
    trainer = {"steps": steps}
    run = start(tmp_path / "run", digits, staleness, rollout=NO_PARITY, trainer=trainer)
    (engine,) = engines
    after = [fingerprint(weights) for weights in learnt]
    assert len({*after}) == steps, "every step moves the weights"
    used = engine.used
    assert len(used) == steps
    assert used[: staleness + 1] == [used[0]] * (staleness + 1)
    assert used[0] not in after
    assert used[staleness + 1 :] == after[: steps - 1 - staleness]
    for row in rows(run, "rollouts"):
        expected = max(0, row["step"] - 1 - staleness)
        assert {r["policy_version"] for r in row["responses"]} == {expected}
    ages = [row["overlap/staleness_max"] for row in rows(run)]
    assert ages == [min(staleness, step - 1) for step in range(1, steps + 1)]
    assert [row["overlap/staleness_mean"] for row in rows(run)] == ages
    promised, other = (gap(learnt[i], *engine.made[-1]) for i in (3, 4))
    assert promised < 1e-5 < 1e-3 < other


@pytest.mark.parametrize(("staleness", "algorithm"), [(2, DAPO), (4, {})])
def test_timing_changes_nothing(
    tmp_path: Path,
    digits: Path,
    staleness: int,
    algorithm: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sections: dict[str, Any] = {"algorithm": algorithm, "trainer": {"steps": STEPS}}
    fast = start(tmp_path / "fast", digits, staleness, **sections)
    rng = np.random.default_rng()
    watch(monkeypatch, *[lambda: time.sleep(rng.uniform(0, 0.4))] * 2)
    slow = start(tmp_path / "slow", digits, staleness, **sections)
    assert said(fast) == said(slow)
    assert same(fast, slow, STEPS)


def test_on_policy_a_copy_gives_the_same_run(tmp_path: Path, digits: Path) -> None:
    trainer = {"steps": 3}
    own = start(tmp_path / "own", digits, 0, rollout={"engine": "hf"}, trainer=trainer)
    copied = start(tmp_path / "copied", digits, 0, trainer=trainer)
    assert same(own, copied, 3)
    assert rows(own, "rollouts") == rows(copied, "rollouts")
    assert not any(name.startswith("overlap/") for name in rows(copied)[0])


def test_adapters_are_merged_into_the_copy(
    tmp_path: Path, digits: Path, learnt: Weighted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate compares what the copy samples with adapters that have moved.

    What adapters sampled that had waited is theirs as they were then.
    """
    pytest.importorskip("peft")
    engines = watch(monkeypatch)
    model = {"lora": {"rank": 4, "alpha": 16}}
    sections = {"model": model, "optimizer": {"learning_rate": 1e-2}}
    trainer = {"steps": 5}
    rollout = {"parity_every": 4}
    run = start(tmp_path / "run", digits, 2, rollout=rollout, trainer=trainer, **sections)
    gaps = [row["parity/image/max"] for row in rows(run) if "parity/image/max" in row]
    assert len(gaps) == 2 and max(gaps) < 1e-4
    first, *later = [abs(row["train/loss"]) for row in rows(run)]
    assert first < 1e-6 < 1e-4 < max(later), "the adapters have moved since they sampled"
    last = next(made for made in reversed(engines[0].made) if len(made[0]) == 3)
    assert gap(learnt[1], *last) < 1e-4 < 1e-2 < gap(learnt[2], *last)


@pytest.mark.parametrize(("staleness", "algorithm"), [(1, {}), (2, DAPO)])
def test_resumes_exactly(
    tmp_path: Path, digits: Path, staleness: int, algorithm: dict[str, Any]
) -> None:
    """From every checkpoint, whatever was under way at it."""
    sections: dict[str, Any] = {"algorithm": algorithm, "trainer": {"steps": STEPS, **EVERY}}
    whole = start(tmp_path / "whole", digits, staleness, **sections)
    expected, weights = said(whole), weights_after(whole, STEPS)
    for step in (STEPS - 1, 2, 1):
        for later in range(step + 1, STEPS + 1):
            (whole / "checkpoints" / f"step_{later}" / "trainer" / "state.json").unlink()
        start(whole, digits, staleness, resume=True, **sections)
        assert said(whole) == expected
        resumed = weights_after(whole, STEPS)
        assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_killed_run_resumes_exactly(tmp_path: Path, digits: Path) -> None:
    """As tests/train/test_resume.py, with two steps ahead and refills that editors ask for."""
    trainer = {"steps": STEPS, "checkpoint_every": 2}
    sections: dict[str, Any] = {"algorithm": DAPO, "trainer": trainer}
    whole = start(tmp_path / "whole", digits, 2, **sections)
    config = ahead(tmp_path / "killed", digits, 2, **sections)
    (tmp_path / "killed.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-m", "mmrl.cli", "train", str(tmp_path / "killed.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (config.run / "metrics.jsonl").exists():
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 2)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(config, resume=True)
    assert said(config.run) == said(whole)
    assert same(config.run, whole, STEPS)


def test_what_is_left_out_ahead_is_counted_once_after_a_resume(
    tmp_path: Path,
) -> None:
    broken = make_digits(tmp_path / "digits", train=8)
    for row in list(Journal(broken / "digit_count" / "train.jsonl").rows())[:4]:
        image = broken / "digit_count" / row["image"]
        image.write_bytes(image.read_bytes()[:200])
    trainer = {"steps": 4, **EVERY}
    data = {"max_unusable_share": 1.0}
    run = start(tmp_path / "run", broken, 2, trainer=trainer, data=data)
    expected, left_out = said(run), rows(run, "quarantine")
    assert left_out
    for later in (3, 4):
        (run / "checkpoints" / f"step_{later}" / "trainer" / "state.json").unlink()
    start(run, broken, 2, trainer=trainer, data=data, resume=True)
    assert said(run) == expected
    assert sorted(map(str, rows(run, "quarantine"))) == sorted(map(str, left_out))


def test_an_update_and_the_next_rollout_run_at_the_same_time(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other to have begun: one after the other, neither would ever end."""
    steps, meeting = 5, threading.Barrier(2)
    updates, rollouts = itertools.count(1), itertools.count(0)
    update = Learner.update

    def meeting_update(self: Learner, *args: Any) -> Any:
        if next(updates) < steps:  # with the last one nothing is rolled out
            meeting.wait(timeout=300)
        return update(self, *args)

    def rolling_out() -> None:
        if next(rollouts):  # the first is waited for before anything is updated
            meeting.wait(timeout=300)

    monkeypatch.setattr(Learner, "update", meeting_update)
    watch(monkeypatch, rolling_out)
    trainer = {"steps": steps, "prompts_per_step": 2}
    run = start(tmp_path / "run", digits, 1, rollout=NO_PARITY, trainer=trainer)
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("slower", SIDES)
def test_who_waited_is_told(
    tmp_path: Path, digits: Path, slower: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second that one side takes after the other is done; a part of it goes to other work."""
    steps, done = 5, {side: [threading.Event() for _ in range(6)] for side in SIDES}
    updates, update = itertools.count(1), Learner.update
    rollouts = itertools.count(0)

    def counted_update(self: Learner, *args: Any) -> Any:
        number = next(updates)
        if slower == "trainer" and number < steps:
            assert done["engine"][number].wait(timeout=300)
            time.sleep(1.0)
        stats = update(self, *args)
        done["trainer"][number].set()
        return stats

    def delay() -> None:
        number = next(rollouts)
        if slower == "engine" and number:
            assert done["trainer"][number].wait(timeout=300)
            time.sleep(1.0)

    monkeypatch.setattr(Learner, "update", counted_update)
    (side,) = (side for side in SIDES if side != slower)
    engines = watch(
        monkeypatch, delay, after=lambda: done["engine"][len(engines[0].used) - 1].set()
    )
    trainer = {"steps": steps, "prompts_per_step": 2}
    run = start(tmp_path / "run", digits, 1, rollout=NO_PARITY, trainer=trainer)
    waited = [row[f"overlap/{side}_waited"] for row in rows(run)[1:-1]]
    assert sum(waited) > 0.5, waited


def answered(staleness: int, text_logprobs: float = -1.0) -> Group:
    """Two answers of three tokens, one right, by weights so many steps old at step 5."""
    from tests.train.test_correction import sample

    prompt = sample([0.5]).prompt
    responses = [
        Response(np.arange(3), np.full(3, text_logprobs), "", "stop", policy_version=4 - staleness)
        for _ in range(2)
    ]
    scores = [Score({}, None, reward=reward) for reward in (0.0, 1.0)]
    return Group(prompt, tuple(responses), tuple(scores))


def grpo() -> Algorithm:
    return Algorithm(
        "grpo", plan=FixedGroup(2), credit=GroupCredit(GroupRelative()), objective=Clipped()
    )


def at_step(step: int) -> Any:
    from mmrl.stage import Context

    return Context(step, 9, 1, np.random.default_rng(0), {})


def test_older_weights_stay_in_the_ratio_of_a_single_update() -> None:
    """Of the step's own weights the ratio is 1; of older ones it is policy over sampler."""
    alone = {"several": False, "exact": False, "corrected": False}
    fresh = compared_with(grpo().train_samples([answered(0)], at_step(5)), **alone)
    stale = compared_with(grpo().train_samples([answered(1)], at_step(5)), **alone)
    assert [s.old_logprobs for s in fresh] == [None, None]
    assert all(np.array_equal(s.old_logprobs, np.full(3, -1.0)) for s in stale)


def test_a_correction_takes_older_weights_out_of_the_ratio() -> None:
    """Weight: trainer over sampler; ratio: policy over trainer, which one update leaves at 1."""
    stale = compared_with(
        grpo().train_samples([answered(1)], at_step(5)), several=False, exact=True, corrected=True
    )
    trained = [np.full(3, -0.5)] * 2
    made, _ = correct(stale, trained, Correction("token_truncate", 1.5))
    for sample in made:
        assert sample.correction == pytest.approx(min(np.exp(0.5), 1.5))
        assert sample.old_logprobs is None


class Noted:
    """A layout that notes whether it was asked."""

    def __init__(self) -> None:
        self.asked = False

    def attend(self, layer: int, query: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.asked = True
        return query


def test_who_sees_whom_in_one_thread_is_nothing_to_the_other() -> None:
    """The second thread's pass is in the middle when the first begins its own."""
    worker, entered, go = Worker(), threading.Event(), threading.Event()
    mine, others = Noted(), Noted()
    layer = torch.nn.Identity()
    layer.layer_idx = 0  # type: ignore[assignment]

    def attend() -> None:
        with active_layout(mine):
            entered.set()
            go.wait()
            attention(layer, *torch.zeros(3, 1, 1, 2, 4), attention_mask=None)

    job = worker.submit(attend)
    entered.wait()
    with active_layout(others):
        go.set()
        job.result()
    worker.close()
    assert mine.asked and not others.asked


def test_a_worker_stops_in_the_middle_of_a_job() -> None:
    worker, begun = Worker(), threading.Event()

    def endless() -> None:
        begun.set()
        while True:
            time.sleep(0.01)

    job, next_job = worker.submit(endless), worker.submit(lambda: None)
    begun.wait()
    worker.close()  # or the test ends at its own limit
    assert isinstance(job.exception(), Stopped)
    assert not any(thread.name == "mmrl-rollout" for thread in threading.enumerate())
    assert not next_job.done() or next_job.cancelled()


def test_what_goes_wrong_in_the_background_is_told_in_one_line(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory\non this device")

    watch(monkeypatch, fail)
    with pytest.raises(UserError, match=r"^rolling out ahead failed: .* memory on this device$"):
        start(tmp_path / "run", digits, 2, rollout=NO_PARITY)
    assert not any(thread.name == "mmrl-rollout" for thread in threading.enumerate())


INTERRUPTED = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
from mmrl.train import rollout_parts as run
from mmrl.cli import main
build = run.build_engine
def slow(*args):
    engine = build(*args)
    generate = engine.generate
    def crawling(*args):
        Path(sys.argv[2]).touch()
        for _ in range(6000):
            time.sleep(0.01)
        return generate(*args)
    engine.generate = crawling
    return engine
run.build_engine = slow
sys.exit(main(["train", sys.argv[1]]))
"""


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, digits: Path) -> None:
    config = ahead(tmp_path / "run", digits, 1, rollout=NO_PARITY)
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "run.yaml"), str(tmp_path / "on")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not (tmp_path / "on").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # it would finish its step, which takes a minute
    time.sleep(2 * SAME_PRESS_SECONDS)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130, error
    assert "Ctrl-C again stops at once" in error
    assert "interrupted; `--resume` goes on" in error.splitlines()[-1] and "Traceback" not in error
    command = ["ps", "-o", "pid=", "-g", str(process.pid)]
    deadline = time.monotonic() + 120
    while subprocess.run(command, capture_output=True).stdout.split():
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.05)


def test_an_engine_on_the_policys_own_weights_is_refused(tmp_path: Path, digits: Path) -> None:
    for engine, words in (("hf", "take engine=hf_copy"), ("targets", "samples nothing")):
        with pytest.raises(UserError, match=words) as error:
            ahead(tmp_path, digits, 1, rollout={"engine": engine})
        assert "\n" not in str(error.value)


def test_an_objective_without_a_ratio_needs_a_correction(tmp_path: Path, digits: Path) -> None:
    algorithm = {"name": "raft", "group_size": 4}
    with pytest.raises(UserError, match=r"set rollout.correction=token_truncate, or"):
        start(tmp_path / "run", digits, 1, algorithm=algorithm)
    rollout = {"correction": "token_truncate"}
    run = start(tmp_path / "run", digits, 1, algorithm=algorithm, rollout=rollout)
    assert rows(run)[0]["train/correction_weight"] == pytest.approx(1, abs=1e-5)
    assert rows(run)[-1]["train/correction_weight"] != pytest.approx(1, abs=1e-5)


def test_a_checkpoint_with_answers_ahead_needs_the_staleness(tmp_path: Path, digits: Path) -> None:
    run = start(tmp_path / "run", digits, 2, trainer={"steps": 4, **EVERY})
    for later in (3, 4):
        (run / "checkpoints" / f"step_{later}" / "trainer" / "state.json").unlink()
    for staleness in (0, 1):
        config = ahead(run, digits, staleness, trainer={"steps": 4})
        with pytest.raises(UserError, match=r"rollout.max_staleness . -> .*--allow-changes"):
            train(config, resume=True)
        with pytest.raises(UserError, match=r"resume with rollout.max_staleness=2"):
            train(config, resume=True, allow_changes=True)
