"""MathVerse: one geometry problem with more or less of it in the picture."""

from mmrl.tasks.mathverse.task import Task

__all__ = ["Task"]
