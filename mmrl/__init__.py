"""mmrl fine-tunes vision-language and audio models with reinforcement learning.

    mmrl.train(config)        carry out a run
    mmrl.evaluate(...)        score a model on a task
    mmrl.load_task(name)      a task by name
    mmrl.load_policy(path)    a model folder behind its family
    mmrl.UserError            what all of them raise for a mistake; see `mmrl.errors`

Importing mmrl does not import torch; the functions do.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmrl.errors import ConfigError, DataError, TrainingError, UserError

if TYPE_CHECKING:
    from mmrl.api import evaluate, load_policy, load_task, train

__all__ = [
    "ConfigError",
    "DataError",
    "TrainingError",
    "UserError",
    "evaluate",
    "load_policy",
    "load_task",
    "train",
]
__version__ = "0.1.0"


class _Package(ModuleType):
    """Keeps the functions that are called as a room is: imports put the room in their place."""

    @property
    def train(self) -> Any:
        """`mmrl.api.train`."""
        return self.__getattr__("train")

    @train.setter
    def train(self, room: ModuleType) -> None:
        pass

    @property
    def evaluate(self) -> Any:
        """`mmrl.api.evaluate`."""
        return self.__getattr__("evaluate")

    @evaluate.setter
    def evaluate(self, room: ModuleType) -> None:
        pass


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmrl' has no attribute '{name}'")
    from mmrl import api

    return getattr(api, name)


sys.modules[__name__].__class__ = _Package
