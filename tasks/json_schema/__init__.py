"""Objects that adhere to a schema and match a gold."""

from mmrl.tasks.json_schema.task import Task

__all__ = ["Task"]
