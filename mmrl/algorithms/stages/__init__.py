"""The pure parts that algorithms are made of: one kind of stage a file."""
