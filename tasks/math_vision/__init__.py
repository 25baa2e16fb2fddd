"""MATH-Vision: competition mathematics with a figure."""

from mmrl.tasks.math_vision.task import Task

__all__ = ["Task"]
