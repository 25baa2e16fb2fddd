"""Crowd counts with the fuzzy reward of FGRPR."""

from mmrl.tasks.crowd_counting.task import Task

__all__ = ["Task"]
