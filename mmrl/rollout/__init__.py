"""Engines that sample responses, and the workers that score them."""
