"""Answer a question about a database with a query."""

from mmrl.tasks.text_to_sql.task import Task

__all__ = ["Task"]
