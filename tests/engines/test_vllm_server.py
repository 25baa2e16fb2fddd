"""Servers of vLLM fail in every way they can, and the answers stay those of the policy.

What they answer when nothing fails is in test_vllm.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mmrl.engines.engine import Sampling
from mmrl.engines.vllm.in_process import Request
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.rollout_config import SERVER_KEY, RolloutConfig
from mmrl.types import Response
from tests.engines.models import TOLERANCE
from tests.engines.pair import GREEDY, TIED, Pair, move
from tests.families import cases
from tests.runs import make_digits, run_config, write_config

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'mmrl[vllm]'")
from mmrl.engines.vllm.client.process import ServerProcess, free_port
from mmrl.engines.vllm.client.remote import VLLMServerEngine, server_arguments

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

LONG = 256
SERVERS = {"start": 2, "request_timeout_seconds": 600}
MODEL = f"qwen2_5_vl{TIED}"


def rollout(**servers: object) -> RolloutConfig:
    return RolloutConfig.model_validate(
        {
            "engine": "vllm_server",
            "max_new_tokens": LONG,
            "max_sequences": 16,
            "servers": {**SERVERS, **servers},
        }
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(MODEL, tmp_path_factory.mktemp("model"), VLLMServerEngine, rollout())
    yield made
    made.vllm.close()


def everything(pair: Pair) -> tuple[list[list[Response]], int]:
    """Six prompts, some with media, three long responses each; how often one was asked again."""
    prompts = list(pair.prompts.values())
    before = pair.vllm.pool.retries
    groups = pair.vllm.generate(prompts, [3] * len(prompts), Sampling(LONG), 11)
    return groups, pair.vllm.pool.retries - before


def same(a: list[list[Response]], b: list[list[Response]]) -> bool:
    return [[r.ids.tolist() for r in g] for g in a] == [[r.ids.tolist() for r in g] for g in b]


def soon(happened: Callable[[], object], seconds: float = 1500) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def members(group: int) -> list[int]:
    """The live processes of a process group, which is what a server is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def disturbed(pair: Pair, number: int, how: int) -> tuple[list[list[Response]], int]:
    """Signal the processes of a server while it is answering."""
    server = pair.vllm.pool.servers[number]
    soon(lambda: server.up)
    process = server.process
    assert process is not None

    def strike() -> None:
        soon(lambda: server.busy)
        time.sleep(0.2)  # by now it has the requests
        for pid in members(process.pid):
            os.kill(pid, how)

    striking = threading.Thread(target=strike)
    striking.start()
    found = everything(pair)
    striking.join()
    return found


def test_a_server_killed_while_it_answers_loses_nothing(pair: Pair) -> None:
    move(list(pair.policy.model.parameters()), seed=5)  # what it was started with is not enough
    pair.sync()
    wanted, _ = everything(pair)
    server = pair.vllm.pool.servers[0]
    first = server.process
    found, retries = disturbed(pair, 0, signal.SIGKILL)
    assert retries >= 1
    assert same(found, wanted)
    soon(lambda: server.up)
    assert server.process is not first
    # The new one has today's weights, not those of the model's folder.
    prompts = list(pair.prompts.values())
    request = Request(0, 1, GREEDY, 0)
    for prompt in prompts:
        ask = pair.vllm._ask(prompt, request)
        assert server.client is not None
        (drawn,) = server.client.generate(ask, 120)
        (wanted_one,) = pair.hf.generate([prompt], [1], GREEDY, 0)[0]
        assert drawn.ids.tolist() == wanted_one.ids.tolist()
        assert np.abs(drawn.logprobs - wanted_one.logprobs).max() < TOLERANCE
    move(list(pair.policy.model.parameters()), seed=6)
    pair.sync()
    assert pair.compare(prompts) < TOLERANCE


def test_a_server_that_hangs_is_replaced(pair: Pair) -> None:
    """Stopped processes keep their sockets open: only a deadline tells."""
    started = time.monotonic()
    wanted, _ = everything(pair)
    # On a busy machine one that does not hang is slow, too.
    patience = max(20.0, 5 * (time.monotonic() - started))
    server = pair.vllm.pool.servers[1]
    hung = server.process
    assert hung is not None
    pair.vllm.pool.config = pair.vllm.pool.config.model_copy(
        update={"request_timeout_seconds": patience}
    )
    try:
        found, retries = disturbed(pair, 1, signal.SIGSTOP)
        assert retries >= 1
        assert same(found, wanted)
        soon(lambda: server.up and server.process is not hung)
        soon(lambda: members(hung.pid) == [])  # a killed process takes a moment to go
    finally:
        pair.vllm.pool.config = pair.vllm.pool.config.model_copy(
            update={"request_timeout_seconds": SERVERS["request_timeout_seconds"]}
        )


def test_answers_of_two_threads_do_not_mix(pair: Pair) -> None:
    """One asks while another asks and syncs, as an asynchronous run does."""
    prompts = list(pair.prompts.values())
    wanted = pair.hf.generate(prompts, [1] * len(prompts), GREEDY, 0)
    found: list[list[list[Response]]] = []

    def keep_asking() -> None:
        for _ in range(3):
            found.append(pair.vllm.generate(prompts, [1] * len(prompts), GREEDY, 0))

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        pair.sync()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(same(one, wanted) for one in found)


def test_servers_that_run_already_are_used(pair: Pair, tmp_path: Path) -> None:
    """With the key of their environment; they stay when the run goes."""
    model = ModelConfig(path=str(pair.folder), max_prompt_tokens=2000)
    arguments = server_arguments(pair.policy.model.config, model, rollout(), on_gpu=False)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = ServerProcess(arguments, port, "secret", None, tmp_path / "log")
    try:
        os.environ[SERVER_KEY] = "secret"
        connected = VLLMServerEngine(pair.policy, model, rollout(urls=[url]))
        prompts = list(pair.prompts.values())
        wanted = pair.hf.generate(prompts, [1] * len(prompts), GREEDY, 0)
        assert same(connected.generate(prompts, [1] * len(prompts), GREEDY, 0), wanted)
        connected.close()
        assert not server.ended
        os.environ[SERVER_KEY] = "another"
        with pytest.raises(UserError, match=SERVER_KEY):
            VLLMServerEngine(pair.policy, model, rollout(urls=[url]))
        os.environ[SERVER_KEY] = "secret"
        other = cases.policy("qwen2_vl")
        with pytest.raises(UserError, match=r"not the run's model.*model_type qwen2_5_vl \(not"):
            VLLMServerEngine(other, model, rollout(urls=[url]))
    finally:
        os.environ.pop(SERVER_KEY, None)
        server.stop()
    soon(lambda: members(server.pid) == [], 30)


def test_a_server_that_cannot_start_says_why(pair: Pair) -> None:
    model = ModelConfig(path=str(pair.folder), max_prompt_tokens=2000)
    broken = rollout(start=1).model_copy(update={"vllm": {"model": "/no/such/model"}})
    with pytest.raises(UserError, match=r"ended at its start: .*/no/such/model"):
        VLLMServerEngine(pair.policy, model, broken)


def test_servers_end_with_a_run_that_is_killed(pair: Pair, tmp_path: Path) -> None:
    """Their starter has no chance to say anything."""
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from mmrl.engines.vllm.client.process import ServerProcess\n"
            f"arguments = {{'model': {str(pair.folder)!r}, 'enforce_eager': True}}\n"
            f"made = ServerProcess(arguments, 0, '', None, Path({str(tmp_path / 'log')!r}))\n"
            "print(made.pid, flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    time.sleep(20)  # far enough for the server to have processes of its own
    assert Path(f"/proc/{pid}").exists()
    starter.kill()
    starter.wait()
    soon(lambda: not members(pid), 60)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits"))


def configure(folder: Path, digits: Path, engine: str) -> Path:
    """Three steps of three groups of four on the shipped model."""
    config = run_config(
        folder / "run",
        digits,
        model={"max_prompt_tokens": 200},
        rollout={"engine": engine, "max_sequences": 16, "servers": {"start": 1}},
    )
    return write_config(folder / f"{engine}.yaml", config)


def trained_on(folder: Path) -> list[tuple[int, str, int]]:
    """Step, sample and number of responses of every group of a run, in order."""
    lines = (folder / "run" / "rollouts.jsonl").read_text().splitlines()
    return [(g["step"], g["id"], len(g["responses"])) for g in map(json.loads, lines)]


def mmrl(*words: str, processes: int = 1) -> subprocess.Popen[str]:
    """The command line, in one process or in several of torchrun's."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "mmrl.cli", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def expected(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, int]]:
    """What the embedded engine is asked: engines do not change what is drawn."""
    folder = tmp_path_factory.mktemp("hf")
    assert mmrl("train", str(configure(folder, digits, "hf"))).wait() == 0
    return trained_on(folder)


def servers_of(pid: int) -> list[int]:
    """The servers that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            words = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and "mmrl.engines.vllm.server" in words:
            found.append(int(stat.parent.name))
    return found


def test_a_run_whose_server_is_killed_trains_on_every_group_once(
    digits: Path, expected: list[tuple[int, str, int]], tmp_path: Path
) -> None:
    run = mmrl("train", str(configure(tmp_path, digits, "vllm_server")))
    soon(lambda: (tmp_path / "run" / "rollouts.jsonl").exists() or run.poll() is not None, 500)
    (server,) = servers_of(run.pid)
    for pid in members(server):
        os.kill(pid, signal.SIGKILL)
    _, said = run.communicate()
    assert run.returncode == 0, said
    assert trained_on(tmp_path) == expected
    assert servers_of(run.pid) == []


def test_two_processes_share_a_server(
    digits: Path, expected: list[tuple[int, str, int]], tmp_path: Path
) -> None:
    """The parity gate, which ran at the start and after the first step, is what compares them."""
    run = mmrl("train", str(configure(tmp_path, digits, "vllm_server")), processes=2)
    _, said = run.communicate()
    assert run.returncode == 0, said
    assert trained_on(tmp_path) == expected
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert metrics[0]["parity/image/max"] < TOLERANCE
