"""Name the interaction defect that two screenshots show."""

from mmrl.tasks.gui_defect.task import Task

__all__ = ["Task"]
