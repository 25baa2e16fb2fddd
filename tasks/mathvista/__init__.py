"""MathVista: mathematics in visual contexts, options or typed numbers."""

from mmrl.tasks.mathvista.task import Task

__all__ = ["Task"]
