"""Policy objectives, one file each: options, loss, bounds, paper, and the names a config uses.

A file defines frozen dataclasses (`mmrl.objective.Objective`) and lists in `OBJECTIVES` the names
by which a config takes them, each with its options. `named` finds them, here and elsewhere.
"""

SHARED = ("margins", "named")
