"""In which quarter of a heat map is the hottest cell?"""

from mmrl_heat.hottest.task import Task

__all__ = ["Task"]
