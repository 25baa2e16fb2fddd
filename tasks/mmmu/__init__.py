"""MMMU: college questions with images, options or open answers."""

from mmrl.tasks.mmmu.task import Task

__all__ = ["Task"]
