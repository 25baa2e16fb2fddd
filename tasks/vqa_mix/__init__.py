"""Visual questions of mixed types, each graded by its own rule."""

from mmrl.tasks.vqa_mix.task import Task

__all__ = ["Task"]
