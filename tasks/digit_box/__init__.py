"""Locate the handwritten digit on a canvas."""

from mmrl.tasks.digit_box.task import Task

__all__ = ["Task"]
