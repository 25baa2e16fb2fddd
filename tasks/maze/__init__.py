"""Find the way through a maze."""

from mmrl.tasks.maze.task import Task

__all__ = ["Task"]
