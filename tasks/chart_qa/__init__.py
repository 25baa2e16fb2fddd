"""Questions about charts, five percent tolerance."""

from mmrl.tasks.chart_qa.task import Task

__all__ = ["Task"]
