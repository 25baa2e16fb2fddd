"""The shared policy wrapper around a transformers model; families say how one takes its media."""
