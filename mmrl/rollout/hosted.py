"""Episodes that other people's environments play: they call the model, it does not call them.

The environments' process asks an endpoint of this one, over HTTP, as it would ask any model. Calls
are answered in rounds: as soon as every episode under way has asked or ended, or some have and the
others take longer than `GRACE`. So the same seed gives the same episodes where environments do not
dawdle, and one that does holds up nobody for long.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmrl.engines.engine import Engine, Sampling, Still
from mmrl.environments.chat_endpoint import MODEL, Call, Completion, Endpoint, Refusal
from mmrl.environments.host import Ended, Host, Hosting
from mmrl.errors import MediaError
from mmrl.policy.encoder import Observes
from mmrl.policy.weights import Weights
from mmrl.rewards.chat_messages import BadMessages, messages_of
from mmrl.rollout.episode import SEEDS_OF_A_TURN, speak
from mmrl.rollout.sessions import Branch, OutOfRoom, Session
from mmrl.types import Prompt, Response

GRACE = 5.0
"""Seconds that episodes which have asked wait for those that have not."""
EPISODE_SECONDS = 900.0
"""For one episode, the time that the model takes included."""


@dataclass
class _Asked:
    """A call with the branch that is to answer it."""

    call: Call
    session: Session
    branch: Branch


@dataclass
class Hosted:
    """An engine whose prompts of some tasks are played by their own environments; else another.

    `tasks` are those, by name. The tokens of a turn are at most `turn_tokens`, an episode's
    observations `observed_tokens` (None: they take of `Sampling.max_new_tokens`).
    """

    engine: Engine
    speaker: Engine
    encoder: Observes
    tasks: Mapping[str, Hosting]
    turn_tokens: int | None = None
    observed_tokens: int | None = None
    updates: int = 0
    _inbox: queue.Queue[object] = field(default_factory=queue.Queue)
    _endpoint: Endpoint | None = None
    _hosts: dict[str, Host] = field(default_factory=dict)
    _played: int = 0

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i, or have as many episodes of it played."""
        own = [i for i, prompt in enumerate(prompts) if prompt.sample.task in self.tasks]
        rest = [i for i in range(len(prompts)) if i not in set(own)]
        found: dict[int, list[Response]] = {}
        if rest:
            asked = [prompts[i] for i in rest]
            made = self.engine.generate(asked, [counts[i] for i in rest], sampling, seed)
            found |= dict(zip(rest, made, strict=True))
        if own:
            # Calls come with prompts of their own.
            sampling = replace(sampling, to_train=False, still=Still())
            wanted = sampling.counts([counts[i] for i in own])
            groups = [
                [self._session(prompts[i], sampling, k == n - 1) for k in range(n)]
                for i, n in zip(own, wanted, strict=True)
            ]
            made = self._play(groups, sampling, seed)
            found |= dict(zip(own, made, strict=True))
        return [found[i] for i in range(len(prompts))]

    def sync(self, weights: Weights) -> None:
        """Let the engine take over the weights."""
        self.updates += 1
        self.engine.sync(weights)

    def close(self) -> None:
        """End the environments' processes, then free what the engine holds."""
        self.end_hosts()
        self.engine.close()

    def end_hosts(self) -> None:
        """End the environments' processes and the endpoint that they call."""
        for host in self._hosts.values():
            host.close()
        self._hosts = {}
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _session(self, prompt: Prompt, sampling: Sampling, last: bool) -> Session:
        self._played += 1
        return Session(
            f"{self._played}",
            prompt,
            self.tasks[prompt.sample.task].first_call(prompt.sample),
            sampling.max_new_tokens,
            self.observed_tokens,
            prompt.sample.turns,
            greedy=sampling.greedy_too and last,
        )

    def _play(
        self, groups: Sequence[Sequence[Session]], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        sessions = {session.name: session for group in groups for session in group}
        ended: dict[str, Ended] = {}
        self._begin(groups, seed)
        waiting: list[Call] = []
        until, turn = time.monotonic() + EPISODE_SECONDS, 0
        while len(ended) < len(sessions):
            self._collect(waiting, ended, sessions, until)
            if waiting:
                round_of, waiting = waiting, []
                self._answer(round_of, sessions, sampling, seed + turn * SEEDS_OF_A_TURN)
                turn += 1
            elif time.monotonic() > until:
                self._give_up(sessions, ended)
        return [[_response(s, ended[s.name]) for s in group] for group in groups]

    def _begin(self, groups: Sequence[Sequence[Session]], seed: int) -> None:
        """Have all episodes begun, each with a seed of its own place."""
        if self._endpoint is None:
            self._endpoint = Endpoint(self._inbox)
        for group in groups:
            for session in group:
                name = session.prompt.sample.task
                host = self._hosts.get(name)
                if host is None or not host.alive:
                    host = self._hosts[name] = self.tasks[name].start(self._inbox)
                index, own = self.tasks[name].place(session.prompt.sample)
                model = f"{MODEL}:{session.name}"
                host.play(session.name, index, own, self._endpoint.url, model)

    def _collect(
        self,
        waiting: list[Call],
        ended: dict[str, Ended],
        sessions: Mapping[str, Session],
        until: float,
    ) -> None:
        """Take in calls and ends until everybody has asked or ended, or those who did waited."""
        patience: float | None = None
        while len({call.session for call in waiting}) + len(ended) < len(sessions):
            now = time.monotonic()
            if waiting and patience is None:
                patience = now + GRACE
            left = (until if patience is None else min(patience, until)) - now
            try:
                event = self._inbox.get(timeout=max(left, 0.0))
            except queue.Empty:
                return
            if isinstance(event, Call):
                if event.session in sessions and event.session not in ended:
                    waiting.append(event)
                else:
                    event.reply(Refusal(404, "no_session", f"no episode '{event.session:.40}'"))
            elif isinstance(event, Ended) and event.id in sessions:
                ended[event.id] = event
                # What nobody waits for any more is not the episode's.
                for call in [call for call in waiting if call.session == event.id]:
                    waiting.remove(call)
                    call.reply(Refusal(404, "no_session", "the episode has ended"))

    def _answer(
        self, calls: Sequence[Call], sessions: Mapping[str, Session], sampling: Sampling, seed: int
    ) -> None:
        """Answer a round of calls, in the order of their sessions."""
        ordered = sorted(calls, key=lambda call: int(call.session))
        asked = [a for call in ordered if (a := self._asked(call, sessions[call.session]))]
        walks = [each.branch.walk for each in asked]
        if not walks:
            return
        before = [tuple(walk.prompt.ids.tolist()) for walk in walks]
        speak(self.speaker, walks, sampling, seed, self.turn_tokens)
        for each, ids in zip(asked, before, strict=True):
            walk, tools = each.branch.walk, bool(each.call.body.get("tools"))
            message = each.session.answer(each.branch, tools)
            cut = walk.finish == "length"
            finish = "length" if cut else "tool_calls" if "tool_calls" in message else "stop"
            spoken, logprobs = tuple(walk.ids[-1].tolist()), tuple(walk.logprobs[-1].tolist())
            each.call.reply(Completion(message, finish, ids, spoken, logprobs, self.updates))

    def _asked(self, call: Call, session: Session) -> _Asked | None:
        """The branch that answers a call; None where it is refused."""
        try:
            messages = messages_of(call.body.get("messages"))
            return _Asked(call, session, session.ask(messages, self.encoder))
        except OutOfRoom as reason:
            call.reply(Refusal(400, "context_length_exceeded", str(reason)))
        except BadMessages as reason:
            session.failure = f"environment failed: {reason}"
            call.reply(Refusal(400, "bad_messages", str(reason)))
        except MediaError as reason:
            session.failure = f"media: {reason}"
            call.reply(Refusal(400, "bad_media", str(reason)))
        return None

    def _give_up(self, sessions: Mapping[str, Session], ended: dict[str, Ended]) -> None:
        """Stop what has not ended in time."""
        for name, session in sessions.items():
            if name not in ended:
                reason = f"no end within {EPISODE_SECONDS:g} s"
                ended[name] = Ended(name, None, reason)
                self._hosts[session.prompt.sample.task].stop(name)


def _response(session: Session, end: Ended) -> Response:
    """What an episode was. One without a verdict has failed, unless it was out of room: then it is
    truncated, with nothing earned."""
    outcome = end.reward
    if outcome is None and session.truncated and not session.failure:
        outcome = 0.0
    if outcome is None and not session.failure:
        session.failure = f"environment failed: {end.error or 'it gave no reward'}"
    return session.response(outcome)
