"""How vLLM samples the policy, and reports it: runs in vLLM's own processes.

vLLM can report log-probs from before temperature and bans, or from after top-k and top-p. The
policy's are between the two, so a logits processor turns logits into the policy's log-probs, and
vLLM is asked for the "logit" of what it then sampled at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

from mmrl.engines.engine import Sampling
from mmrl.engines.vllm.media import Positions

KEY = "mmrl"
POSITIONS = "mmrl_positions"


def sampling_params(
    sampling: Sampling,
    count: int,
    seed: int,
    banned: Sequence[int],
    end_ids: Sequence[int],
    positions: Positions | None = None,
) -> SamplingParams:
    """Ask for `count` responses to a prompt; they stop at `end_ids` and never hold `banned`.

    Greedy responses are all the same: vLLM is asked for one. `positions` are the prompt's own.
    """
    greedy = sampling.temperature == 0
    asked = {"temperature": sampling.temperature or 1.0, "banned": [int(i) for i in banned]}
    return SamplingParams(
        n=1 if greedy else count,
        temperature=0.0 if greedy else 1.0,
        top_p=1.0 if greedy else sampling.top_p,
        top_k=0 if greedy else sampling.top_k,
        max_tokens=sampling.max_new_tokens,
        seed=seed,
        logprobs=0,
        ignore_eos=True,
        stop_token_ids=list(end_ids),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={KEY: asked, POSITIONS: positions},
    )


class PolicyLogits(LogitsProcessor):  # type: ignore[misc]
    """Turns logits into log-probs of the policy, for the requests that ask for it.

    The policy is the distribution at the request's temperature over the vocabulary without the
    banned ids, as in `mmrl.policy.logprobs.policy_log_softmax`.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._asked: dict[int, dict[str, Any]] = {}
        self._rows = self._heat = self._banned_rows = self._banned_ids = torch.zeros(0)

    def is_argmax_invariant(self) -> bool:
        """Banned ids are kept from greedy sampling too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow requests that join, leave or move in the batch."""
        if process_dict_updates(self._asked, batch_update, _asked_for):
            rows = sorted(self._asked)
            heat = [self._asked[row]["temperature"] for row in rows]
            banned = [(row, i) for row in rows for i in self._asked[row]["banned"]]
            self._rows = torch.tensor(rows, device=self._device)
            self._heat = torch.tensor(heat, device=self._device)[:, None]
            self._banned_rows, self._banned_ids = (
                torch.tensor([pair[side] for pair in banned], dtype=torch.long, device=self._device)
                for side in (0, 1)
            )

    def apply(self, logits: Tensor) -> Tensor:
        """Logits [B, V] in float32 -> log-probs in the rows of requests that asked for it."""
        if not self._asked:
            return logits
        logits[self._banned_rows, self._banned_ids] = float("-inf")
        if len(self._asked) == len(logits):
            return (logits / self._heat).log_softmax(-1)
        logits[self._rows] = (logits[self._rows] / self._heat).log_softmax(-1)
        return logits


def _asked_for(params: SamplingParams, *_: Any) -> dict[str, Any] | None:
    asked: dict[str, Any] | None = (params.extra_args or {}).get(KEY)
    return asked
