"""When in a video something happens."""

from mmrl.tasks.temporal_grounding.task import Task

__all__ = ["Task"]
