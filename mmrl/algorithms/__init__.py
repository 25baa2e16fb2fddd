"""Algorithms, one file each; the modules in `SHARED` hold the pure parts they are made of."""

SHARED = (
    "catalogue",
    "checks",
    "compose",
    "credit",
    "editors",
    "key_steps",
    "objectives",
    "refiners",
    "replay",
    "samplers",
    "schedules",
    "shapers",
    "variants",
)
