"""Instructions with reference answers, scored by BLEU."""

from mmrl.tasks.instruction_following.task import Task

__all__ = ["Task"]
