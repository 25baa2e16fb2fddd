"""Algorithms, one file each; `credit` holds the small pure parts they share."""

SHARED = ("credit",)
