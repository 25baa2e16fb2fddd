"""Image quality: a rating, a degradation, or a comparison."""

from mmrl.tasks.image_quality.task import Task

__all__ = ["Task"]
