"""Episodes that another package plays and scores, calling the model itself."""

from mmrl.tasks.hosted.task import Task

__all__ = ["Task"]
