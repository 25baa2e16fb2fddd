"""A policy's answers -> the benchmark's number, with its page."""
