"""Plug-ins for mmrl: heat maps as media, a task about them, an algorithm, and a family."""
