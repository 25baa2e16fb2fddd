"""Problems in words: one mathematical answer."""

from mmrl.tasks.math.task import Task

__all__ = ["Task"]
