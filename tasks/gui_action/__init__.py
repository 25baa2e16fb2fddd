"""Predict the next action on a screen."""

from mmrl.tasks.gui_action.task import Task

__all__ = ["Task"]
