"""Engines: prompts -> responses, by the weights they were handed."""
