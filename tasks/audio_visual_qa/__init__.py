"""Questions about a picture and a sound."""

from mmrl.tasks.audio_visual_qa.task import Task

__all__ = ["Task"]
