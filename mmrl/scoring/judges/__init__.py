"""Models that judge answers beside the trainer: over HTTP, or in a process of their own."""
