"""What else happens to runs: signals, disks, files changed by others, rewards, a second run.

Each returns what is wrong, "" if the outcome is the one that it promises.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mmrl.runlog.journal import Journal
from mmrl.train.checkpoint_files import SUMS, write_checksums
from tests.faults.kills import Bench, resumed
from tests.faults.subjects import SUBJECTS, Traces
from tests.faults.trapped import Trap

PLAIN = SUBJECTS[0]
Mishap = Callable[[Bench], str]


def one_line(bench: Bench, run: Path, code: int, *words: str) -> str:
    """Whether a command ended with 2 and one line that holds the words."""
    said = bench.said(run)
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if code != 2 or "Traceback" in said or not last.startswith("mmrl: "):
        return f"exit {code}: {said[-300:]}"
    missing = [word for word in words if word not in last]
    return f"{missing} is not in: {last}" if missing else ""


def told_to_end(number: signal.Signals) -> Mishap:
    """A signal: the step is finished and saved."""

    def mishap(bench: Bench) -> str:
        run = bench.folder(number.name)
        moment = int(bench.rng.integers(2, 60))
        code = bench.train(PLAIN, run, Trap("stage", moment, number.name, folder=str(run)))
        said = bench.said(run).strip().splitlines()[-1]
        if code != 128 + number or "goes on from its checkpoint after step" not in said:
            return f"exit {code}: {said}"
        if not any((run / "checkpoints").glob("step_*")):
            return "no checkpoint"
        return resumed(bench, PLAIN, run)

    return mishap


def full_disk(share: float) -> Mishap:
    """The disk is full from a moment of the run on; later there is space again."""

    def mishap(bench: Bench) -> str:
        files = bench.whole(PLAIN)[1]["file"]
        run = bench.folder("full")
        code = bench.train(PLAIN, run, Trap("file", int(share * files), "full", folder=str(run)))
        return one_line(bench, run, code, "no space left") or resumed(bench, PLAIN, run)

    return mishap


def read_only(bench: Bench) -> str:
    """A run folder where nothing can be written."""
    run = bench.folder("read-only")
    config = PLAIN.config(bench.workspace, run)
    arguments = ["train", str(config), "run=/proc/mmrl/run"]
    code = bench.zygote.run(arguments, run.parent / "said.txt")
    return one_line(bench, run, code, "cannot be written", "choose another run=")


def _stopped(bench: Bench, name: str) -> Path:
    """A run that was killed in its fifth step, with checkpoints of steps 2 and 4."""
    run = bench.folder(name)
    code = bench.train(PLAIN, run, Trap("stage", 14 * 4 + 5, "SIGKILL", folder=str(run)))
    assert code == -signal.SIGKILL, bench.said(run)
    return run


def damaged(change: Callable[[Path], None]) -> Mishap:
    """The newest checkpoint is not what was written: the one before is taken, with a warning."""

    def mishap(bench: Bench) -> str:
        run = _stopped(bench, "damaged")
        change(run / "checkpoints" / "step_4")
        wrong = resumed(bench, PLAIN, run)
        said = bench.said(run)
        if "step_4 is damaged" not in said or "resumed after step 2" not in said:
            return f"not noticed: {said[-300:]}"
        shutil.rmtree(run / "checkpoints" / "damaged_step_4")
        return wrong

    return mishap


def flip(name: str) -> Callable[[Path], None]:
    """One bit in the middle of a file."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 16
        (folder / name).write_bytes(data)

    return change


def cut(name: str) -> Callable[[Path], None]:
    """A file ends early."""

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


def lose(name: str) -> Callable[[Path], None]:
    """A file is gone."""
    return lambda folder: (folder / name).unlink()


def of_another_step(name: str) -> Callable[[Path], None]:
    """A file of the checkpoint before."""
    return lambda folder: shutil.copy(folder.with_name("step_2") / name, folder / name)


def edited(change: Callable[[Path], list[str]], *words: str) -> Mishap:
    """Something that makes it another run was changed between the kill and `--resume`: refused."""

    def mishap(bench: Bench) -> str:
        run = bench.folder("edited")
        config, digits = _with_own_digits(bench, run)
        trap = Trap("stage", 14 * 4 + 5, "SIGKILL", folder=str(run))
        code = bench.zygote.run(["train", str(config)], run.parent / "said.txt", trap)
        assert code == -signal.SIGKILL, bench.said(run)
        before = (run / "config.yaml").read_text()
        arguments = ["train", str(config), *change(digits), "--resume"]
        code = bench.zygote.run(arguments, run.parent / "said.txt")
        if (run / "config.yaml").read_text() != before:
            return "the configuration in the run folder was overwritten"
        return one_line(bench, run, code, *words)

    return mishap


def _with_own_digits(bench: Bench, run: Path) -> tuple[Path, Path]:
    """The configuration of a run on a copy of the data beside it, and the folder of the copy."""
    own = run.parent / "digits"
    shutil.copytree(bench.workspace / "digits", own)
    config = PLAIN.config(bench.workspace, run)
    config.write_text(config.read_text().replace(str(bench.workspace / "digits"), str(own)))
    return config, own / "digit_count"


def _records(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    file = folder / "train.jsonl"
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def another_gold(folder: Path) -> list[str]:
    """One record's answer."""
    file, rows = _records(folder)
    rows[3]["count"] += 1
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return []


def another_order(folder: Path) -> list[str]:
    """The records the other way round."""
    file, rows = _records(folder)
    file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return []


def another_picture(folder: Path) -> list[str]:
    """One record's picture."""
    _, rows = _records(folder)
    shutil.copy(folder / rows[4]["image"], folder / rows[3]["image"])
    return []


def other_versions(bench: Bench) -> str:
    """A package had another version when the checkpoint was written: said, and gone on."""
    run = _stopped(bench, "versions")
    folder = run / "checkpoints" / "step_4"
    state = json.loads((folder / "trainer" / "state.json").read_text())
    state["versions"]["torch"] = "1.0"
    (folder / "trainer" / "state.json").write_text(json.dumps(state))
    (folder / "trainer" / SUMS).unlink()
    write_checksums(folder, {})
    wrong = resumed(bench, PLAIN, run)
    return wrong or ("" if "torch 1.0 ->" in bench.said(run) else f"unsaid: {bench.said(run)}")


def media_gone(bench: Bench) -> str:
    """The pictures vanish while the run goes on: it stops with one line, or counts what is lost."""
    run = bench.folder("gone")
    config, digits = _with_own_digits(bench, run)
    trap = Trap("stage", 20, "gone", folder=str(run), target=str(digits / "images"))
    code = bench.zygote.run(["train", str(config)], run.parent / "said.txt", trap)
    if not (run / "quarantine.jsonl").is_file():
        return f"exit {code} without a word: {bench.said(run)[-300:]}"
    return one_line(bench, run, code, "no image at")


def reward(name: str, unscorable: bool) -> Mishap:
    """A reward that misbehaves on some answers: the run goes on, and counts them if it must."""

    def mishap(bench: Bench) -> str:
        run = bench.folder(name)
        config = PLAIN.config(bench.workspace, run)
        values = yaml.safe_load(config.read_text())
        file, rows = _records(bench.workspace / "digits" / "digit_count")
        asked = [
            {"id": str(i), "image": row["image"], "prompt": "How many?", "number": i}
            for i, row in enumerate(rows)
        ]
        path = file.with_name("asked.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in asked))
        function = {"function": f"tests.faults.rewards:{name}"}
        values["data"] = {"task": "custom", "path": str(path), "params": function}
        values["rollout"] |= {"scoring_timeout_seconds": 0.5, "max_unscorable_share": 0.9}
        values["trainer"]["prompts_per_step"] = 5
        config.write_text(yaml.safe_dump(values))
        code = bench.zygote.run(["train", str(config)], run.parent / "said.txt")
        if code != 0 or "Traceback" in bench.said(run):
            return f"exit {code}: {bench.said(run)[-300:]}"
        rows = list(Journal(run / "metrics.jsonl").rows())
        lost = sum(row["share/unscorable"] for row in rows)
        if (lost > 0) != unscorable:
            return f"{lost:g} unscorable"
        for group in Journal(run / "rollouts.jsonl").rows():
            for one in group["responses"]:
                if one["reward"] not in (None, float(len(one["text"]) % 3)):
                    return f"'{one['text']}' earned {one['reward']}"
        return ""

    return mishap


def two_runs(bench: Bench) -> str:
    """A second run, a resumed one and one that would replace it, in the folder of a live one."""
    run, steps = bench.folder("two"), 100
    config = str(PLAIN.config(bench.workspace, run, steps=steps))
    first = bench.zygote.start(["train", config], run.parent / "first.txt")
    deadline = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    wrong = ""
    for flags in ((), ("--resume",), ("--overwrite",)):
        code = bench.zygote.run(["train", config, *flags], run.parent / "said.txt")
        words = "in use by process" if flags else "holds a run already"
        wrong = wrong or one_line(bench, run, code, words)
    code = bench.zygote.wait(first)
    if code != 0:
        return f"the first ended with {code}"
    seen = [row["step"] for row in Journal(run / "metrics.jsonl").rows()]
    return wrong or ("" if seen == list(range(1, steps + 1)) else f"its steps are {seen}")


def clock_jumps(bench: Bench) -> str:
    """The clock of the machine jumps by a day, back and forth, at every stage."""
    run = bench.folder("clock")
    code = bench.train(PLAIN, run, Trap("stage", 5, "jump", folder=str(run)))
    if code != 0:
        return f"exit {code}: {bench.said(run)[-300:]}"
    return Traces.of(run).difference(bench.whole(PLAIN)[0])


WEIGHTS, OPTIMIZER = "model.safetensors", "trainer/optimizer.safetensors"
WARNED = "the checkpoint before, with a warning, then exact"
REFUSED = "one line, exit 2; nothing is overwritten"
SAVED = "the step is finished and saved; exact resume"
UNSCORABLE = "those answers are unscorable and counted, the others score as ever"
MISHAPS: dict[str, tuple[Mishap, str]] = {
    "SIGTERM": (told_to_end(signal.SIGTERM), f"exit 143: {SAVED}"),
    "SIGINT (Ctrl-C)": (told_to_end(signal.SIGINT), f"exit 130: {SAVED}"),
    "disk full at the first files": (full_disk(0.1), "one line, exit 2; exact resume"),
    "disk full in a checkpoint": (full_disk(0.5), "one line, exit 2; exact resume"),
    "disk full at the end": (full_disk(0.9), "one line, exit 2; exact resume"),
    "read-only folder": (read_only, REFUSED),
    "weights cut": (damaged(cut(WEIGHTS)), WARNED),
    "weights with a flipped bit": (damaged(flip(WEIGHTS)), WARNED),
    "weights of another step": (damaged(of_another_step(WEIGHTS)), WARNED),
    "optimiser with a flipped bit": (damaged(flip(OPTIMIZER)), WARNED),
    "optimiser gone": (damaged(lose(OPTIMIZER)), WARNED),
    "state cut": (damaged(cut("trainer/state.json")), WARNED),
    "configuration of the model gone": (damaged(lose("config.json")), WARNED),
    "a gold edited before resume": (edited(another_gold, "records"), REFUSED),
    "records in another order": (edited(another_order, "records"), REFUSED),
    "a picture replaced before resume": (edited(another_picture, "records"), REFUSED),
    "learning rate edited before resume": (
        edited(lambda _: ["optimizer.learning_rate=0.1"], "optimizer.learning_rate"),
        REFUSED,
    ),
    "group size edited before resume": (
        edited(lambda _: ["algorithm.group_size=2"], "algorithm.group_size"),
        REFUSED,
    ),
    "another version of a package": (other_versions, "said; goes on"),
    "pictures gone during the run": (media_gone, "quarantined by name; one line, exit 2"),
    "a reward that hangs": (reward("hangs", True), UNSCORABLE),
    "a reward that crashes": (reward("crashes", True), UNSCORABLE),
    "a reward that leaks": (reward("leaks", True), UNSCORABLE),
    "a reward that raises": (reward("raises", True), UNSCORABLE),
    "a reward that says nonsense": (reward("says_nonsense", True), UNSCORABLE),
    "a reward that forks": (reward("forks", False), "every answer scores as ever"),
    "a reward that prints": (reward("prints", False), "every answer scores as ever"),
    "a second run in the folder": (two_runs, "one line, exit 2; the first is unharmed"),
    "a clock that jumps": (clock_jumps, "nothing changes"),
}
"""Faults by name, and the outcome that each promises."""
