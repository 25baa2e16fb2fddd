"""Model families, one file each: placement of media, positions, coordinates."""

SHARED = ("chat",)
