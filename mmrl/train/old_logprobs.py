"""Old log-probs: what a step's ratio compares the policy with. One rule for all algorithms.

| the response | old log-probs | costs |
|---|---|---|
| of the step's weights, one update follows | the policy's there: a ratio of 1 | nothing |
| of the step's weights, several follow, the engine is exact | those sampled | nothing |
| of the step's weights, several follow, the engine is not exact | the trainer's | a forward |
| of older weights (rolled out ahead, replayed) | those sampled | nothing |
| any, with an importance correction | the trainer's; the weight has the rest | a forward |
| under another prompt, or of nobody's policy, several follow | the trainer's | a forward |

The trainer's are those of its weights before the step's first update. A ratio says how far the
policy moved since, and a clip is set for that: GSPO's, of 3e-4, is less than what half precision
puts between an engine's log-probs and the trainer's, and would cut most responses before the first
update. Older weights are gone; what they sampled is off-policy by more than rounding, and its ratio
counts from them (decoupled by a correction, arXiv 2505.24298).

An engine is exact where it runs the trainer's code in float32: its log-probs are the trainer's to
1e-6 nats. The forward is without gradient, over what is trained, in the micro-batches of the
updates, since in half precision a log-prob depends on what shares its pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmrl.types import TrainSample


def compared_with(
    samples: Sequence[TrainSample], *, several: bool, exact: bool, corrected: bool
) -> list[TrainSample]:
    """Keep the sampled log-probs where they are the old ones; None elsewhere, the trainer's own.

    `several`: more than one update follows in the step; `exact`: so is the engine; `corrected`: an
    importance correction is applied.
    """

    def sampled_stay(sample: TrainSample) -> bool:
        return not corrected and (sample.older or (several and exact))

    return [s if sampled_stay(s) else replace(s, old_logprobs=None) for s in samples]
