"""Video and image questions of mixed types."""

from mmrl.tasks.video_mix.task import Task

__all__ = ["Task"]
