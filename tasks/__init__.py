"""Tasks, one folder each; reached by name through `mmrl.tasks`."""

if __name__ != "mmrl.tasks":
    raise ImportError("import tasks as mmrl.tasks.<name>")
