"""The intent of an utterance, one label of its candidates."""

from mmrl.tasks.intent.task import Task

__all__ = ["Task"]
