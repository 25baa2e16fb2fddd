"""An OpenEnv server: say the word that is asked for, twice. Prints its port."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

WORDS = ("moss", "fern")


class Say(Action):
    word: str


class Asked(Observation):
    ask: str


class Words(Environment[Say, Asked, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Asked:
        self._turn = 0
        return Asked(ask=f"Say {WORDS[0]}.", done=False, reward=None)

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Asked:
        earned = float(action.word == WORDS[self._turn])
        self._turn += 1
        done = self._turn == len(WORDS)
        return Asked(ask="" if done else f"Say {WORDS[self._turn]}.", done=done, reward=earned)

    @property
    def state(self) -> State:
        return State(step_count=self._turn)


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    app = create_fastapi_app(Words, Say, Asked, max_concurrent_envs=8)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
