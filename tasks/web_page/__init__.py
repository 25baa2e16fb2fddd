"""Operate a page in a real browser, one action a turn."""

from mmrl.tasks.web_page.task import Task

__all__ = ["Task"]
