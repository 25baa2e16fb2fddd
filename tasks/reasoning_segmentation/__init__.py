"""Find what a question implies: boxes and points that prompt a segmentation model."""

from mmrl.tasks.reasoning_segmentation.task import Task

__all__ = ["Task"]
