"""Records of any shape, scored by the user's own reward function."""

from mmrl.tasks.custom.task import Task

__all__ = ["Task"]
