"""Spatial questions about videos of rooms, VSI-Bench."""

from mmrl.tasks.vsi_bench.task import Task

__all__ = ["Task"]
