"""Short and long answers that keep to a context."""

from mmrl.tasks.faithful_qa.task import Task

__all__ = ["Task"]
