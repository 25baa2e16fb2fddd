"""Fine-grained classes: one label of a closed set."""

from mmrl.tasks.fine_grained.task import Task

__all__ = ["Task"]
