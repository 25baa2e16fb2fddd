"""Choose the tools that help a frozen model answer."""

from mmrl.tasks.tool_selection.task import Task

__all__ = ["Task"]
