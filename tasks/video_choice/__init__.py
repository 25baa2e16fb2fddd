"""Multiple-choice questions about videos."""

from mmrl.tasks.video_choice.task import Task

__all__ = ["Task"]
