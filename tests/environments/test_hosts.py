"""The packages themselves behind their hosts, with a scripted model; skipped where they are not.

`MMRL_HOSTS_PYTHON` names an interpreter that has verifiers, gymnasium and openenv, if this one
has not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmrl.environments.chat_endpoint import MODEL, Call, Completion, Endpoint
from mmrl.environments.host import HOSTS, Began, Ended, Host
from mmrl.errors import UserError
from mmrl.rewards.chat_messages import Message, messages_of
from mmrl.types import MediaRef, Text

PYTHON = os.environ.get("MMRL_HOSTS_PYTHON", sys.executable)
GAMES = Path(__file__).parent / "hosted"
Say = Callable[[Sequence[Message], dict[str, Any]], str]

if sys.executable == PYTHON and not importlib.util.find_spec("verifiers"):
    pytest.skip("no verifiers here, nor MMRL_HOSTS_PYTHON", allow_module_level=True)


def play(
    kind: str, settings: dict[str, Any], count: int, say: Say
) -> tuple[list[Ended], list[tuple[Message, ...]], dict[str, Any]]:
    """How episodes ended whose model says what `say` does, all that was asked, what began."""
    inbox: queue.Queue[Any] = queue.Queue()
    endpoint = Endpoint(inbox)
    host = Host(HOSTS / f"{kind}_host.py", settings, inbox, PYTHON)
    ended: list[Ended] = []
    asked: list[tuple[Message, ...]] = []
    about: dict[str, Any] = {}
    try:
        for index in range(count):
            host.play(f"{index}", index, index, endpoint.url, f"{MODEL}:{index}")
        while len(ended) < count:
            event = inbox.get(timeout=300)
            if isinstance(event, Call):
                asked.append(messages_of(event.body["messages"]))
                text = say(asked[-1], about.get(event.session, {}))
                message = {"role": "assistant", "content": text}
                event.reply(Completion(message, "stop", (1,), (2,), (-1.0,)))
            elif isinstance(event, Began):
                about[event.id] = event.about
            else:
                ended.append(event)
    finally:
        host.close()
        endpoint.close()
    return sorted(ended, key=lambda e: str(e.id)), asked, about


@pytest.fixture
def games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(GAMES))


def test_verifiers_plays_its_game_of_squares(games: None) -> None:
    def say(messages: Sequence[Message], about: dict[str, Any]) -> str:
        shown = sum(isinstance(part, MediaRef) for m in messages for part in m.parts)
        word = about["answer"][:shown]
        return word if about["idx"] != 1 else word[::-1]

    settings = {"taskset": {"id": "codeword"}}
    ended, asked, about = play("verifiers", settings, 3, say)
    wrong = float(about["1"]["answer"] == about["1"]["answer"][::-1])
    assert [e.reward for e in ended] == [1.0, wrong, 1.0] and not any(e.error for e in ended)
    assert len(asked) == 9 and sorted(len(m) for m in asked) == [2] * 3 + [4] * 3 + [6] * 3
    assert asked[0][0].role == "system" and "red A" in asked[0][0].parts[0].text


def test_gymnasium_is_a_chat() -> None:
    def say(messages: Sequence[Message], about: dict[str, Any]) -> str:
        last = messages[-1].parts[0]
        assert isinstance(last, Text)
        if len(messages) == 3:
            return "neither"
        seen = last.text.splitlines()[-1]
        tilt = json.loads(seen)[2] if seen.startswith("[") else 1.0
        return "right" if tilt > 0 else "push left"

    settings = {
        "id": "CartPole-v1", "goal": "Balance.", "actions": ["left", "right"], "steps": 20,
        "scale": 0.1,
    }  # fmt: skip
    ended, asked, _ = play("gymnasium", settings, 2, say)
    # Twenty turns, one of them no action.
    assert [e.reward for e in ended] == pytest.approx([1.9, 1.9]), ended
    assert any(m[-1].parts == (Text("That is no action."),) for m in asked)
    first = {m[0].parts for m in asked}
    assert len(first) == 2, "an episode's number is its seed"


def test_openenv_plays_through_verifiers(games: None) -> None:
    server = subprocess.Popen(
        [PYTHON, str(GAMES / "openenv_server.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        resets: list[dict[str, Any]] = [{}, {}]
        url = f"http://127.0.0.1:{port}"
        settings = {"taskset": {"id": "openenv", "base_url": url, "resets": resets}}

        def say(messages: Sequence[Message], about: dict[str, Any]) -> str:
            text = "".join(p.text for p in messages[-1].parts if isinstance(p, Text))
            return "moss" if "moss" in text else "nettle"

        ended, asked, _ = play("verifiers", settings, 2, say)
    finally:
        server.kill()
        server.wait()
    assert [e.reward for e in ended] == [1.0, 1.0], [e.error for e in ended]
    assert len(asked) == 4


def test_an_environment_that_is_not_there_is_said() -> None:
    missing = {"taskset": {"id": "there-is-no-such-thing"}}
    with pytest.raises(UserError, match="there_is_no_such_thing"):
        Host(HOSTS / "verifiers_host.py", missing, queue.Queue(), PYTHON)
