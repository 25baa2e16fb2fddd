"""Write a program that passes tests, and make it faster turn by turn."""

from mmrl.tasks.code.task import Task

__all__ = ["Task"]
