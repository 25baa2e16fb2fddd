"""Operate a computer over several steps."""

from mmrl.tasks.gui_agent.task import Task

__all__ = ["Task"]
