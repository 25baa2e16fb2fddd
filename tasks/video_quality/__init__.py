"""The quality of a video in one of a closed set of words."""

from mmrl.tasks.video_quality.task import Task

__all__ = ["Task"]
