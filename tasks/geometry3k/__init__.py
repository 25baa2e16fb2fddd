"""Geometry questions with a diagram and one mathematical answer."""

from mmrl.tasks.geometry3k.task import Task

__all__ = ["Task"]
