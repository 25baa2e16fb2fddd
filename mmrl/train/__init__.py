"""The loop and what it moves: batches in, weights out."""
