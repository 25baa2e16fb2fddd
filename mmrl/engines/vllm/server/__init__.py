"""What runs in the processes of a vLLM server."""
