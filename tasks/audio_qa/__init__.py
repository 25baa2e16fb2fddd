"""Multiple-choice questions about sounds, answered by the text of a choice."""

from mmrl.tasks.audio_qa.task import Task

__all__ = ["Task"]
