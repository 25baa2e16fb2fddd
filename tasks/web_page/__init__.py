"""Walk a maze on a map, one move a turn."""

from mmrl.tasks.web_page.task import Task

__all__ = ["Task"]
