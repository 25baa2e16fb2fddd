"""A Gemma 4 as it is released: logits near their cap of 30, sampled as its own forward says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmrl.engines.engine import Sampling
from mmrl.engines.hf import HFEngine
from mmrl.policy.shared_prefix import SharedRow
from tests.engines.pair import loud
from tests.families.cases import ask, cases, plain, policy, processed, relative, shared
from tests.families.tiny import TINY, build

CASES = cases(TINY["gemma4"].kinds)
TOLERANCE = 1e-5  # relative, float32


@pytest.mark.parametrize("label", CASES)
@torch.no_grad()
def test_what_is_sampled_and_trained_is_the_models_own(label: str) -> None:
    made, own = policy("gemma4"), loud(build("gemma4")[0])
    loud(made.model)
    case = CASES[label]
    prompt = ask(made, case)
    (group,) = HFEngine(made).generate([prompt], [3], Sampling(8, temperature=1.0), 1)
    answers = tuple(response.ids for response in group)
    inputs = processed(made, case)
    wanted = plain(own, inputs, prompt, answers, made.banned)
    sampled = torch.from_numpy(np.concatenate([r.logprobs for r in group])).float()
    assert relative(sampled, wanted) < TOLERANCE
    assert relative(shared(made, [SharedRow(prompt, answers)]), wanted) < TOLERANCE
    # The comparison sees the cap: the same model without one says something else.
    own.config.get_text_config().final_logit_softcapping = None
    assert relative(plain(own, inputs, prompt, answers, made.banned), wanted) > 100 * TOLERANCE
