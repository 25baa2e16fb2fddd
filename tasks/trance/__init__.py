"""Sequences of transformations between two views."""

from mmrl.tasks.trance.task import Task

__all__ = ["Task"]
