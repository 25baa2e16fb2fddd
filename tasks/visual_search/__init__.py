"""Find a small detail by zooming, then answer."""

from mmrl.tasks.visual_search.task import Task

__all__ = ["Task"]
