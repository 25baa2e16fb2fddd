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


class _Room(ModuleType):
    """A room with the name of a public function: called, it is that function."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from mmrl import api

        return getattr(api, self.__name__.rpartition(".")[2])(*arguments, **options)


class _Package(ModuleType):
    """Importing `mmrl.train.run` puts the room `mmrl.train` in the place of the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and type(value) is ModuleType:
            value.__class__ = _Room
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmrl' has no attribute '{name}'")
    from mmrl import api

    return getattr(api, name)


sys.modules[__name__].__class__ = _Package
