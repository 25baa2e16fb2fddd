"""Model families, one file each: placement of media, positions, coordinates."""

SHARED = ("chat", "composed", "grid", "omni", "splice")
