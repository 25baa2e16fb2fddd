"""What a run leaves behind: its folder, metrics, transcripts and journals."""
