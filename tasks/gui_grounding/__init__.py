"""Point at a screen element, or say that it is not there."""

from mmrl.tasks.gui_grounding.task import Task

__all__ = ["Task"]
