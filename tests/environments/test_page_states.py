"""A live page's states in training: anchors of GiGPO, and stored episodes that ARPO plays again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmrl.algorithms.arpo import ReplaySuccess
from mmrl.algorithms.compose import compose
from mmrl.data_recipes.digits import write_jsonl
from mmrl.data_recipes.web_pages import record_of
from mmrl.engines.engine import Sampling
from mmrl.environments.browser import Pages
from mmrl.environments.devtools import browser_path
from mmrl.environments.environment import Seen
from mmrl.errors import UserError
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import Policy
from mmrl.rollout.episode import Episodes
from mmrl.scoring.living import Living
from mmrl.scoring.pool import Scorer, TaskSpec
from mmrl.scoring.tasks import load_task
from mmrl.task import FIRST_STATE
from mmrl.tasks.web_page.task import PAGES, SIDE
from mmrl.types import Group, Prompt, Response, Sample, Score
from tests.algorithms.cases import context
from tests.families.cases import policy
from tests.rollout.test_observed import trained

try:
    browser_path()
except UserError:
    pytest.skip("no browser on this machine", allow_module_level=True)

NEXT, BACK, FIRST, SECOND = (185, 197), (39, 197), (112, 29), (112, 83)
"""Places on `turn_pages`: its buttons, and the upper two of the three names that a page shows."""
NO_ACTION = "What is this?"


async def recorded(out: Path) -> dict[str, Any]:
    """A record of `turn_pages` whose name is the first of the second page."""
    (out / "screens").mkdir()
    world = Pages(PAGES, SIDE, SIDE)
    try:
        for seed in range(1, 60):
            page = await world.open()
            record = await record_of(page, "turn_pages", seed, out)
            await page.close()
            if [(step["x"], step["y"]) for step in record["path"]] == [NEXT, FIRST]:
                return record
    finally:
        await world.close()
    raise AssertionError("no such seed")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    out = tmp_path_factory.mktemp("pages")
    write_jsonl(out / "one.jsonl", [asyncio.run(recorded(out))])
    task = load_task("web_page")
    (record,) = task.records(out / "one.jsonl")
    return task.ask(record)


@dataclass
class Says:
    """An engine that says each episode's turns, whatever they are, and ends every one."""

    made: Policy
    left: list[list[str]]

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        going = iter([turns for turns in self.left if turns])
        return [[self._say(next(going).pop(0)) for _ in range(count)] for count in counts]

    def _say(self, text: str) -> Response:
        ids = self.made.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ended = np.array([*ids, self.made.family.end_ids[0]], dtype=np.int64)
        return Response(ended, np.full(len(ended), -1.0), text, "stop")


@pytest.fixture(scope="module")
def group(sample: Sample) -> Iterator[tuple[Policy, Group]]:
    """Four answers: two find the name, one of them by a detour, and two press another."""
    made = policy("qwen2_5_vl")
    prompt = Encoder(made.family).prompt(sample)

    def click(at: tuple[float, float]) -> str:
        x, y = prompt.frames[0].from_source(*at, prompt.space)
        return f'<answer>{{"action": "click", "point": [{x:.2f}, {y:.2f}]}}</answer>'

    turns = [
        [click(NEXT), click(BACK), click(NEXT), click(FIRST)],
        [NO_ACTION, click(NEXT), NO_ACTION, click(FIRST)],
        [click(NEXT), click(SECOND)],
        [click(FIRST)],
    ]
    steps = Living(Scorer({"web_page": TaskSpec("web_page")}, 1, 60.0), {"web_page": _task()})
    try:
        # A limit for each turn, so that all episodes are asked in one call, in their order.
        player = Episodes(Says(made, turns), steps, Encoder(made.family), 200)  # type: ignore[arg-type]
        (answers,) = player.generate([prompt], [4], Sampling(4000), 0)
    finally:
        steps.close()
    assert [answer.episode.failure for answer in answers] == [""] * 4  # type: ignore[union-attr]
    outcomes = [answer.episode.outcome for answer in answers]  # type: ignore[union-attr]
    assert outcomes == [1.0, 1.0, 0.0, 0.0]
    scores = tuple(Score({"done": o}, o, reward=o) for o in outcomes if o is not None)
    yield made, Group(prompt, tuple(answers), scores)


def _task() -> Any:
    return load_task("web_page")


def states(group: Group) -> list[list[str]]:
    return [[turn.state for turn in r.episode.turns] for r in group.responses]  # type: ignore[union-attr]


def test_equal_pages_are_one_anchor_whichever_way_led_there(group: tuple[Policy, Group]) -> None:
    (detour, hesitant, wrong, at_once) = states(group[1])
    second = detour[1]
    assert second != FIRST_STATE
    assert detour == [FIRST_STATE, second, FIRST_STATE, second]
    assert hesitant == [FIRST_STATE, FIRST_STATE, second, second], "no action leaves the page"
    assert (wrong, at_once) == ([FIRST_STATE, second], [FIRST_STATE])


def test_gigpo_compares_turns_at_the_same_page(group: tuple[Policy, Group]) -> None:
    """Returns at a discount of 1/2: twice 1/8 1/4 1/2 1, then 0 0 and 0.

    At the first page they are 1/8, 1/2, 1/8, 1/4, 0, 0 (mean 1/6), at the second 1/4, 1, 1/2, 1, 0
    (mean 11/20). The episodes' own advantages are 1/2 and -1/2.
    """
    samples = compose({"name": "gigpo", "gamma": 0.5}).train_samples([group[1]], context())
    first, second = 0.5 - 1 / 6, 0.5 - 11 / 20
    wanted = [
        [first + 1 / 8, second + 1 / 4, first + 1 / 2, second + 1],
        [first + 1 / 8, first + 1 / 4, second + 1 / 2, second + 1],
        [first - 1, second - 1],
        [first - 1],
    ]
    for found, answer, values in zip(samples, group[1].responses, wanted, strict=True):
        turns = answer.episode.turns  # type: ignore[union-attr]
        for turn, value in zip(turns, values, strict=True):
            np.testing.assert_allclose(found.advantages[turn.start : turn.end], value)


def test_a_stored_live_episode_is_trained_as_it_was_played(group: tuple[Policy, Group]) -> None:
    made, played = group
    asked = context()
    replay = ReplaySuccess()
    replay([played], asked)
    later = context(step=2, **json.loads(json.dumps(asked.state)))  # as a checkpoint carries it
    bad, scores = played.responses[2:] * 2, played.scores[2:] * 2
    failing = replace(played, responses=bad, scores=scores)
    (edited,) = replay([failing], later).groups
    stored = edited.responses[0]
    assert edited.scores[0].reward == 1.0 and edited.responses[1:] == bad[1:]
    own = next(r for r in played.responses if r.text == stored.text)
    assert stored.episode == own.episode and stored.observed is not None
    with torch.no_grad():
        again, before = (trained(made, [played.prompt], [[r]]) for r in (stored, own))
        first = played.responses[0].observed.media[1:2]  # type: ignore[union-attr]
        others = replace(stored.observed, media=first * len(stored.observed.media))
        elsewhere = trained(made, [played.prompt], [[replace(stored, observed=others)]])
    assert torch.equal(again, before) and not torch.equal(again, elsewhere), "its screens are seen"


def test_where_the_next_letter_goes_is_part_of_a_state() -> None:
    start = {"page": "fill_field.html", "seed": 2}
    field, empty = ({"type": "click", "x": 112.0, "y": y} for y in (30.0, 220.0))

    async def keys(actions: Sequence[dict[str, Any]]) -> list[str]:
        world = Pages(PAGES, SIDE, SIDE)
        try:
            page = await world.open()
            seen: list[Seen] = [await page.reset(start)]
            return [s.key for s in (*seen, *[await page.step(action) for action in actions])]
        finally:
            await world.close()

    writes = [field, {"type": "type", "text": "ab"}, {"type": "hotkey", "text": "left"}]
    first, focused, typed, moved = asyncio.run(keys(writes))
    assert len({first, focused, typed, moved}) == 4
    assert asyncio.run(keys([field, empty])) == [FIRST_STATE, focused, FIRST_STATE]
