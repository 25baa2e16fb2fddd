"""Questions that may be looked up: search passages over several turns, then answer."""

from mmrl.tasks.search_qa.task import Task

__all__ = ["Task"]
