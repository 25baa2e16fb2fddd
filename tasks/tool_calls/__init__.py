"""Call the right tools with the right arguments."""

from mmrl.tasks.tool_calls.task import Task

__all__ = ["Task"]
