"""Detect every object of the asked categories."""

from mmrl.tasks.detection.task import Task

__all__ = ["Task"]
