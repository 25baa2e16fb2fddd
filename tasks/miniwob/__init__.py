"""Operate the pages of MiniWoB in a real browser, one action a turn."""

from mmrl.tasks.miniwob.task import Task

__all__ = ["Task"]
