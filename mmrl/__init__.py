"""mmrl fine-tunes vision-language and audio models with reinforcement learning.

    mmrl.train(config)        carry out a run
    mmrl.evaluate(...)        score a model on a task
    mmrl.load_task(name)      a task by name
    mmrl.load_policy(path)    a model folder behind its family

Importing mmrl does not import torch; these functions do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrl.api import evaluate, load_policy, load_task, train

__all__ = ["evaluate", "load_policy", "load_task", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmrl' has no attribute '{name}'")
    from mmrl import api

    return getattr(api, name)
