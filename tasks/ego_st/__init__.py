"""Routes in egocentric video, forwards and in reverse."""

from mmrl.tasks.ego_st.task import Task

__all__ = ["Task"]
