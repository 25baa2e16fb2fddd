"""Requests reach their answers past servers that are dead, late, stale or wrong.

The servers here speak the real protocol over real sockets and sample nothing; those of vLLM are in
tests/engines/test_vllm_server.py.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling
from mmrl.engines.vllm import wire
from mmrl.engines.vllm.client.http import Client
from mmrl.engines.vllm.client.push import ByFile
from mmrl.engines.vllm.client.server_pool import TRIES, Pool
from mmrl.engines.vllm.media import Later, PlacedMedium
from mmrl.engines.vllm.server.kept_media import KeptMedia
from mmrl.errors import UserError
from mmrl.rollout_config import ServersConfig

Fault = Callable[[wire.Ask], tuple[int, dict[str, Any]] | None]


class Speaker:
    """A server whose answer to request i is token i, by the weights it was given last."""

    def __init__(self) -> None:
        self.version = "default"
        self.fault: Fault = lambda ask: None
        self.seen: list[int] = []
        self.pushes: list[Any] = []
        self.kept = KeptMedia()
        self.sizes: list[int] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        """Listen, at the port of before if there was one."""
        speaker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {"version": speaker.version})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, plain = speaker.answer(self.path, body)
                self._send(status, plain)

            def _send(self, status: int, plain: Any) -> None:
                if status == 0:  # hangs up
                    self.close_connection = True
                    return
                text = json.dumps(plain).encode()
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                except BrokenPipeError:
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path == wire.WEIGHTS:
            asked = json.loads(body)
            self.pushes.append(asked["push"])
            self.version = asked["version"]
            self.kept.clear()
            return 200, {}
        self.sizes.append(len(body))
        try:
            ask = wire.unpack(body, self.kept)
        except wire.Lacking as lacking:
            return wire.LACKING, {"error": str(lacking)}
        self.kept.keep(ask.media)
        self.seen.append(ask.ids[0])
        return self.fault(ask) or self.sampled(ask)

    def sampled(self, ask: wire.Ask) -> tuple[int, dict[str, Any]]:
        if self.version != ask.version:
            return wire.STALE, {"error": "other weights"}
        drawn = wire.Drawn(np.array(ask.ids), np.array([-float(self.version) - 1]))
        count = 1 if ask.sampling.temperature == 0 else ask.count
        return 200, wire.pack_answer(self.version, [drawn] * count)

    def close(self) -> None:
        server, self._server = self._server, None  # two threads may close it
        if server is not None:
            server.shutdown()
            server.server_close()


def asks(count: int, version: str = "0") -> list[wire.Ask]:
    return [
        wire.Ask(f"s{i}", (i,), (), Sampling(4), 2, seed=i, banned=(), end_ids=(), version=version)
        for i in range(count)
    ]


@pytest.fixture
def speakers() -> Iterator[list[Speaker]]:
    made = [Speaker(), Speaker()]
    yield made
    for speaker in made:
        speaker.close()


@pytest.fixture
def pool(speakers: list[Speaker]) -> Iterator[Pool]:
    made = open_pool(speakers)
    yield made
    made.close()


def open_pool(speakers: list[Speaker], **config: Any) -> Pool:
    servers = ServersConfig(
        **{"request_timeout_seconds": 60.0, "start_timeout_seconds": 60.0, **config}
    )
    clients = [Client(f"http://127.0.0.1:{speaker.port}", "") for speaker in speakers]
    made = Pool(servers, clients, start=None, check=lambda _: None)
    made.open()
    made.push(lambda _: ByFile(Path("weights"), "0"), "0")
    return made


def expect(pool: Pool, count: int, version: str = "0") -> None:
    """Every request has its own answer, at its place, both responses of it."""
    answers = pool.ask(asks(count, version))
    assert [[d.ids.tolist() for d in group] for group in answers] == [
        [[i]] * 2 for i in range(count)
    ]
    assert all(d.logprobs[0] == -int(version) - 1 for group in answers for d in group)


def test_requests_are_balanced(pool: Pool, speakers: list[Speaker]) -> None:
    for speaker in speakers:
        speaker.fault = lambda ask: time.sleep(0.02)
    expect(pool, 40)
    assert min(len(speaker.seen) for speaker in speakers) >= 10
    assert sorted(speakers[0].seen + speakers[1].seen) == list(range(40))
    assert pool.retries == 0


def test_a_server_that_dies_loses_and_repeats_nothing(pool: Pool, speakers: list[Speaker]) -> None:
    first = speakers[0]

    def die(ask: wire.Ask) -> tuple[int, dict[str, Any]] | None:
        if len(first.seen) < 4:
            return None
        threading.Thread(target=first.close).start()
        return 0, {}

    first.fault = die
    expect(pool, 40)
    assert pool.retries >= 1


def test_a_server_that_comes_back_gets_the_weights_before_it_is_asked(
    pool: Pool, speakers: list[Speaker]
) -> None:
    first, second = speakers
    first.close()
    expect(pool, 4)
    pool.push(lambda _: ByFile(Path("newer"), "1"), "1")
    first.version, first.seen = "default", []
    first.open()
    deadline = time.monotonic() + 60
    while pool.restarts == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert first.pushes[-1] == {"folder": "newer", "base": "1", "adapter": None}
    second.close()
    expect(pool, 4, version="1")
    assert sorted(first.seen) == [0, 1, 2, 3]


PIXELS = 10_000
WHOLE = 4 * PIXELS  # bytes


def shown(number: int, made: list[int]) -> PlacedMedium:
    """A screen, which is noted when its tensors are made."""

    def make() -> dict[str, torch.Tensor]:
        made.append(number)
        return {"pixel_values": torch.full((PIXELS,), float(number))}

    return PlacedMedium("image", f"image-{number}", number, 1, None, Later(make))


def turn(number: int, version: str, made: list[int]) -> wire.Ask:
    """The request of a turn, with the screens of all turns up to it."""
    media = tuple(shown(i, made) for i in range(number + 1))
    return wire.Ask("s", (number,), media, Sampling(4), 1, 0, (), (), version)


def test_a_server_is_sent_a_screen_once(speakers: list[Speaker]) -> None:
    """Those of turns before are named, and their tensors are not even made."""
    (first, _), made = speakers, list[int]()
    pool = open_pool(speakers[:1])
    for number in range(4):
        pool.ask([turn(number, "0", made)])
    assert all(WHOLE < size < 1.2 * WHOLE for size in first.sizes)
    assert made == [0, 1, 2, 3]
    pool.push(lambda _: ByFile(Path("newer"), "1"), "1")
    pool.ask([turn(3, "1", made)])  # another run may have taken the server meanwhile
    assert first.sizes[-1] > 4 * WHOLE
    pool.close()


def test_a_server_that_has_let_go_of_screens_is_sent_them_again(speakers: list[Speaker]) -> None:
    (first, _), made = speakers, list[int]()
    pool = open_pool(speakers[:1])
    pool.ask([turn(2, "0", made)])
    first.kept.clear()
    pool.ask([turn(3, "0", made)])
    whole, asked, again = first.sizes
    assert asked < 1.2 * WHOLE and whole > 3 * WHOLE and again > 4 * WHOLE
    assert (pool.retries, first.seen) == (0, [2, 3])
    pool.ask([turn(3, "0", made)])
    assert first.sizes[-1] < 0.2 * WHOLE
    pool.close()


def test_every_server_is_sent_what_it_lacks(pool: Pool, speakers: list[Speaker]) -> None:
    made = list[int]()
    for speaker in speakers:
        speaker.fault = lambda ask: time.sleep(0.02)
    for _ in range(3):
        pool.ask([turn(1, "0", made) for _ in range(8)])
    for speaker in speakers:
        assert len(speaker.sizes) > 2 and speaker.sizes[-1] < 0.2 * WHOLE


def test_a_late_answer_is_sought_elsewhere_and_does_not_count_twice(
    speakers: list[Speaker],
) -> None:
    first, second = speakers
    pool = open_pool(speakers, request_timeout_seconds=10.0)
    held = threading.Event()
    first.fault = lambda ask: held.wait(60) and None
    expect(pool, 6)
    assert sorted(second.seen) == list(range(6))
    assert pool.retries == len(first.seen) > 0
    first.fault = lambda ask: None
    held.set()  # the late answers arrive
    expect(pool, 6)
    pool.close()


def test_servers_that_are_all_late_end_with_the_setting_to_change(
    speakers: list[Speaker],
) -> None:
    pool = open_pool(speakers, request_timeout_seconds=5.0)
    held = threading.Event()
    for speaker in speakers:
        speaker.fault = lambda ask: held.wait(60) and None
    message = rf"sample 's0' got no answer in {TRIES} tries.*request_timeout_seconds"
    with pytest.raises(UserError, match=message):
        pool.ask(asks(1))
    held.set()
    pool.close()


def test_no_response_of_other_weights_is_taken(pool: Pool, speakers: list[Speaker]) -> None:
    """Not of a server that says so, and not of one that does not notice."""
    first = speakers[0]
    pool.push(lambda _: ByFile(Path("newer"), "1"), "1")
    first.version = "0"  # it was started again behind our back
    expect(pool, 8, version="1")
    first.fault = lambda ask: (200, wire.pack_answer("0", [wire.Drawn(np.ones(1), np.ones(1))] * 2))
    expect(pool, 8, version="1")


def test_an_answer_of_too_few_responses_is_no_answer(pool: Pool, speakers: list[Speaker]) -> None:
    speakers[0].fault = lambda ask: (
        200,
        wire.pack_answer("0", [wire.Drawn(np.array(ask.ids), np.zeros(1))]),
    )
    expect(pool, 4)


def test_what_no_server_can_take_is_not_asked_again(pool: Pool, speakers: list[Speaker]) -> None:
    for speaker in speakers:
        speaker.fault = lambda ask: (wire.REFUSED, {"error": "sample 's0': no such medium"})
    with pytest.raises(UserError, match="no such medium"):
        pool.ask(asks(1))
    assert len(speakers[0].seen) + len(speakers[1].seen) == 1


def test_a_failing_server_is_passed_over(pool: Pool, speakers: list[Speaker]) -> None:
    speakers[0].fault = lambda ask: (500, {"error": "out of memory"})
    expect(pool, 8)


def test_servers_that_stay_away_end_the_run(speakers: list[Speaker]) -> None:
    made = open_pool(speakers, start_timeout_seconds=2.0)
    for speaker in speakers:
        speaker.close()
    with pytest.raises(UserError, match=r"no vLLM server is left: .*start_timeout_seconds=2"):
        made.ask(asks(2))
    made.close()


def test_a_greedy_group_is_one_answer(pool: Pool, speakers: list[Speaker]) -> None:
    greedy = wire.Ask("s", (3,), (), Sampling(4, temperature=0.0), 3, 0, (), (), "0")
    (group,) = pool.ask([greedy])
    assert [d.ids.tolist() for d in group] == [[3]] * 3


def test_a_server_without_our_routes_is_named(speakers: list[Speaker]) -> None:
    speakers[0].fault = lambda ask: (404, {"detail": "Not Found"})
    client = Client(f"http://127.0.0.1:{speakers[0].port}", "")
    with pytest.raises(UserError, match="is no server of mmrl"):
        client.generate(asks(1)[0], 1.0)


def test_a_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(UserError, match=r"rollout\.servers\.urls: 'gpu7:8000' is no http"):
        Client("gpu7:8000", "")
