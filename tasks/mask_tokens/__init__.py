"""Masks written as a run of tokens of adaptive length."""

from mmrl.tasks.mask_tokens.task import Task

__all__ = ["Task"]
