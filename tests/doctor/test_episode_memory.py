"""What a plan says of episodes' keys holds for episodes that are played."""

from __future__ import annotations

from typing import Any

import pytest

from mmrl.doctor import memory, shape
from mmrl.doctor.counts import Asked, Counts
from mmrl.engines.decoding import Decoding
from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.engines.prefix_cache import PrefixCache
from mmrl.policy.encoder import Encoder
from mmrl.policy.policy import load_policy
from mmrl.rollout.episode import Episodes
from tests.doctor.test_doctor import config
from tests.rollout.test_observed import TURNS, Shows, first

LONGEST, ANSWERS = 120, 4


def test_the_cache_has_room_for_what_episodes_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = config(rollout={"max_new_tokens": LONGEST}, trainer={"prompts_per_step": 1})
    policy = load_policy(asked.model.model_copy(update={"max_prompt_tokens": 2000}))
    policy.family.end_ids = tuple(range(200, 300))
    prompt, _ = first(policy, 0)
    held: list[int] = []
    caches: list[PrefixCache] = []
    made, advanced = PrefixCache.__init__, Decoding.advance

    def cache(self: PrefixCache, *args: Any) -> None:
        made(self, *args)
        caches.append(self)

    def advance(self: Decoding) -> None:
        advanced(self)
        kept = [entry.fed for each in caches for entry in each._kept]
        tensors = [x for fed in kept for x in (*fed.keys.values(), *fed.values.values())]
        held.append(self.allocated + sum(x.nbytes for x in tensors))

    monkeypatch.setattr(PrefixCache, "__init__", cache)
    monkeypatch.setattr(Decoding, "advance", advance)
    player = Episodes(HFEngine(policy), Shows("image"), Encoder(policy.family), waves=2)  # type: ignore[arg-type]
    ((*answers,),) = player.generate([prompt], [ANSWERS], Sampling(LONGEST), 2)
    assert max(len(r.episode.turns) for r in answers if r.episode) == TURNS

    seen = Counts(1, (Asked(len(prompt.ids), 0, (0.0,)),), turns=TURNS)
    token = memory.token_cache(shape.measure(asked), width=4)
    planned = memory.plan(asked, shape.measure(asked), seen, 1).cache
    assert planned == token * 2 * ANSWERS * (len(prompt.ids) + LONGEST)
    anew = asked.model_copy(
        update={"rollout": asked.rollout.model_copy(update={"prefix_tokens": 0})}
    )
    assert memory.plan(anew, shape.measure(anew), seen, 1).cache == planned // 2
    alone = memory.plan(asked, shape.measure(asked), Counts(1, seen.asked), 1).cache
    assert alone < max(held) <= planned
