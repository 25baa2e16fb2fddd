"""Count objects: one integer."""

from mmrl.tasks.counting.task import Task

__all__ = ["Task"]
