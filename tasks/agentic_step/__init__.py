"""Take the right next step of a search or image-processing agent."""

from mmrl.tasks.agentic_step.task import Task

__all__ = ["Task"]
