"""Which of two answers to a question is better, in both orders?"""

from mmrl.tasks.text_judge.task import Task

__all__ = ["Task"]
