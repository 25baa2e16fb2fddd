"""Algorithms, one file each, made of the pure parts in `stages`.

The modules in `SHARED` build and list algorithms.
"""

SHARED = ("catalogue", "checks", "common", "compose", "stages")
