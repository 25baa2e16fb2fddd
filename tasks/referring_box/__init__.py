"""The box of the region that an expression describes."""

from mmrl.tasks.referring_box.task import Task

__all__ = ["Task"]
