"""Records -> samples -> a resumable stream of prompts."""
