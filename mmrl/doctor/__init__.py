"""What a run needs before it starts: packages, devices, and the memory of every stage."""
