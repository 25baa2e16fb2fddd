"""Algorithms, one file each; the modules in `SHARED` hold the pure parts they are made of."""

SHARED = (
    "advantage_estimation",
    "answers",
    "catalogue",
    "checks",
    "common",
    "compose",
    "credit",
    "editors",
    "estimates",
    "key_steps",
    "lengths",
    "objectives",
    "pairs",
    "refiners",
    "replay",
    "samplers",
    "schedules",
    "shapers",
    "turns",
    "variants",
)
