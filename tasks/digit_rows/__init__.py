"""Count the handwritten digits on a canvas."""

from mmrl.tasks.digit_rows.task import Task

__all__ = ["Task"]
