"""A letter, and the moments that show it."""

from mmrl.tasks.grounded_video_qa.task import Task

__all__ = ["Task"]
