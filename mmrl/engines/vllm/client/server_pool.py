"""Several vLLM servers as one: requests are balanced, what fails is asked again elsewhere.

A server that died is started again (or, on another machine, waited for) and gets the current
weights before it is asked anything. Requests are known by their number, and the first answer of the
right weights is the only one that counts: nothing is lost, nothing is there twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mmrl.engines.vllm.client.http import Client, Late, Unusable
from mmrl.engines.vllm.client.process import ServerProcess
from mmrl.engines.vllm.client.push import Push
from mmrl.engines.vllm.wire import Ask, Drawn
from mmrl.errors import UserError
from mmrl.rollout_config import ServersConfig

TRIES = 3
SIDE_BY_SIDE = 64  # requests on their way to a server; it queues them itself
POLL_SECONDS = 0.5

Start = Callable[[int], ServerProcess]
Check = Callable[[Client], None]


@dataclass(eq=False)
class Server:
    """A place in the pool and the server that holds it now.

    `up`: it has the current weights. `waiting`: it will have the next ones.
    """

    number: int
    client: Client
    process: ServerProcess | None = None
    up: bool = False
    waiting: bool = False
    busy: int = 0
    starts: int = 0
    lost: str = ""


@dataclass
class Pool:
    """Servers at `clients`; with `start`, each is started here by its number.

    `check` raises UserError for a server that is not of this run's model. `retries` counts requests
    that were asked again, `restarts` servers that came back.
    """

    config: ServersConfig
    clients: Sequence[Client]
    start: Start | None
    check: Check
    retries: int = 0
    restarts: int = 0
    _later: Mapping[str, Any] | None = None
    _version: str = ""
    _closed: bool = False

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._syncing = threading.Lock()
        self.servers = [Server(number, client) for number, client in enumerate(self.clients)]

    def open(self) -> None:
        """Start the servers, or reach them, all at once; raises UserError where one fails."""
        with ThreadPoolExecutor(len(self.servers)) as threads:
            for made in [threads.submit(self._begin, server) for server in self.servers]:
                made.result()
        if self.start is not None:
            threading.Thread(target=self._watch, daemon=True).start()

    def ask(self, asks: Sequence[Ask]) -> list[list[Drawn]]:
        """The responses to every request, in order."""
        if not asks:
            return []
        most = min(len(asks), SIDE_BY_SIDE * len(self.servers))
        with ThreadPoolExecutor(most) as threads:
            answers = [threads.submit(self._answer, ask) for ask in asks]
            try:
                return [answer.result() for answer in answers]
            except BaseException:
                for answer in answers:
                    answer.cancel()
                raise

    def expect(self, later: Mapping[str, Any] | None, version: str) -> None:
        """From now on, weights of that version, which another process gives to the servers.

        `later` is what servers are told that come later: see `Push`.
        """
        with self._syncing, self._changed:
            self._later, self._version = later, version
            for server in self.servers:
                server.up, server.waiting = server.up or server.waiting, False

    def push(self, make: Callable[[Sequence[Client]], Push], version: str) -> None:
        """Give weights to all servers that are there; the others get them when they are back."""
        self._wait_for_one()
        with self._syncing:
            with self._changed:
                there = [server for server in self.servers if server.up or server.waiting]
            push = make([server.client for server in there])
            self._later, self._version = push.later, version
            with ThreadPoolExecutor(len(there) + 1) as threads:
                given = [
                    threads.submit(self._give, server, push.told(number))
                    for number, server in enumerate(there)
                ]
                push.send()
                for one in given:
                    one.result()

    def close(self) -> None:
        """End the servers that were started here."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for server in self.servers:
            if server.process is not None:
                server.process.stop()

    def _begin(self, server: Server) -> None:
        try:
            self._reach(server)
        except Unusable as error:
            raise UserError(str(error)) from None
        server.waiting = True

    def _reach(self, server: Server) -> None:
        """Start or find a server and see that it is the right one; it has no weights yet."""
        server.starts += 1
        if self.start is not None:
            server.process = self.start(server.number)
        self._await(server)
        self.check(server.client)

    def _await(self, server: Server) -> None:
        """Wait until a server answers; raises UserError where it never does in all that time."""
        deadline = time.monotonic() + self.config.start_timeout_seconds
        while True:
            try:
                server.client.state()
                return
            except Unusable as error:
                reason = str(error)
            if server.process is not None and server.process.ended:
                raise Unusable(f"a vLLM server ended at its start: {server.process.last_words()}")
            if self._closed or time.monotonic() > deadline:
                raise UserError(
                    f"{reason}; waited rollout.servers.start_timeout_seconds="
                    f"{self.config.start_timeout_seconds:g}"
                )
            time.sleep(POLL_SECONDS)

    def _wait_for_one(self) -> None:
        with self._changed:
            while not any(s.up or s.waiting for s in self.servers):
                self._raise_if_none_will_come()
                self._changed.wait()

    def _give(self, server: Server, told: Mapping[str, Any]) -> None:
        """Let a server take weights; one that cannot be reached is replaced."""
        try:
            server.client.take_weights(told, self._version, self.config.request_timeout_seconds)
            with self._changed:
                server.up, server.waiting = True, False
        except Unusable as error:
            self._replace(server, str(error))

    def _answer(self, ask: Ask) -> list[Drawn]:
        """One request, asked until a server answers it as it should."""
        reasons = list[str]()
        asked: set[Server] = set()
        for _ in range(TRIES):
            server = self._take(asked)
            try:
                drawn = server.client.generate(ask, self.config.request_timeout_seconds)
                return self._whole(drawn, ask, server.client.url)
            except Unusable as error:
                reasons.append(str(error))
                asked.add(server)
                self._look_at(server, error)
            finally:
                self._give_back(server)
        raise UserError(
            f"sample '{ask.sample}' got no answer in {TRIES} tries ({'; '.join(reasons)}): raise "
            "rollout.servers.request_timeout_seconds if the servers are slow"
        )

    @staticmethod
    def _whole(drawn: list[Drawn], ask: Ask, url: str) -> list[Drawn]:
        wanted = 1 if ask.sampling.temperature == 0 else ask.count
        if len(drawn) != wanted:
            raise Unusable(f"{url} sent {len(drawn)} responses of {wanted}")
        return drawn * ask.count if wanted != ask.count else drawn

    def _take(self, asked: set[Server]) -> Server:
        """The least busy server, one that has not failed this request before if there is any."""
        with self._changed:
            while True:
                up = [server for server in self.servers if server.up]
                if up:
                    best = min(up, key=lambda s: (s in asked, s.busy, s.number))
                    best.busy += 1
                    return best
                self._raise_if_none_will_come()
                if all(server.lost or server.waiting for server in self.servers):
                    raise UserError(
                        "no vLLM server has the weights, and broadcast ones come with the next "
                        "step only: resume the run, or set rollout.servers.weights=file"
                    )
                self._changed.wait()

    def _raise_if_none_will_come(self) -> None:
        if self._closed or all(server.lost for server in self.servers):
            reasons = "; ".join(server.lost for server in self.servers)
            raise UserError(f"no vLLM server is left: {reasons}")

    def _give_back(self, server: Server) -> None:
        with self._changed:
            server.busy -= 1

    def _look_at(self, server: Server, error: Unusable) -> None:
        """After a failure: is the server still there, with the right weights? Else replace it."""
        with self._changed:
            self.retries += 1
        try:
            state = server.client.state()
        except Unusable as unreachable:
            self._replace(server, str(unreachable))
            return
        if not isinstance(error, Late) and state["version"] != self._version:
            self._replace(server, str(error))

    def _watch(self) -> None:
        """Replace started servers that end, also those that nobody is asking."""
        while not self._closed:
            for server in self.servers:
                if server.process is not None and server.process.ended:
                    self._replace(server, "it ended")
            time.sleep(POLL_SECONDS)

    def _replace(self, server: Server, reason: str) -> None:
        """Take a server out and bring it back in the background, unless that is under way."""
        with self._changed:
            if not (server.up or server.waiting) or self._closed:
                return
            server.up = server.waiting = False
        threading.Thread(target=self._revive, args=(server, reason), daemon=True).start()

    def _revive(self, server: Server, reason: str) -> None:
        """Bring a server back with the current weights; a start that fails counts as one."""
        try:
            while not self._closed:
                self._end(server, reason)
                try:
                    self._reach(server)
                    self._come_back(server)
                    return
                except Unusable as error:
                    reason = str(error)
        except UserError as error:
            with self._changed:
                server.lost = str(error)
                self._changed.notify_all()

    def _end(self, server: Server, reason: str) -> None:
        if server.process is not None:
            if server.process.ended:
                reason = f"it ended: {server.process.last_words()}"
            server.process.stop()
        if server.starts > self.config.restarts:
            raise UserError(
                f"vLLM server {server.number} was lost more often than rollout.servers.restarts="
                f"{self.config.restarts} ({reason})"
            )

    def _come_back(self, server: Server) -> None:
        """Let a server in that has been away, with the current weights or to wait for the next."""
        with self._syncing:
            if self._later is not None:
                seconds = self.config.request_timeout_seconds
                server.client.take_weights(self._later, self._version, seconds)
            with self._changed:
                server.up, server.waiting = self._later is not None, self._later is None
                self.restarts += 1
                self._changed.notify_all()
