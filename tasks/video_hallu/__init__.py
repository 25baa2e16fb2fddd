"""Questions about what generated videos show against common sense."""

from mmrl.tasks.video_hallu.task import Task

__all__ = ["Task"]
