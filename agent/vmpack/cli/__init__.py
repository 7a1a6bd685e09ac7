"""One thin file per command; main.py builds the tree."""
