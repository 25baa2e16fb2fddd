"""Open-vocabulary detection with hard negatives."""

from mmrl.tasks.ovdeval.task import Task

__all__ = ["Task"]
