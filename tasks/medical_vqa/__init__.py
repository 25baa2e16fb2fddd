"""Medical images: one option's letter."""

from mmrl.tasks.medical_vqa.task import Task

__all__ = ["Task"]
