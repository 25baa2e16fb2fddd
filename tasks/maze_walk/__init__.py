"""Walk a maze on a map, one move a turn."""

from mmrl.tasks.maze_walk.task import Task

__all__ = ["Task"]
