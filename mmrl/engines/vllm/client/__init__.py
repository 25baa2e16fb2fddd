"""The trainer's side of vLLM servers."""
