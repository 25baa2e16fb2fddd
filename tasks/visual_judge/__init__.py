"""Which of two images, videos or answers is better?"""

from mmrl.tasks.visual_judge.task import Task

__all__ = ["Task"]
