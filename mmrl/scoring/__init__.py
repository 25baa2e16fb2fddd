"""Responses -> scores, in worker processes with a deadline."""
