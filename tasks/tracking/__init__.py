"""One box for each frame of a video."""

from mmrl.tasks.tracking.task import Task

__all__ = ["Task"]
