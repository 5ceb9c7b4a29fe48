"""Examples, one command each: README.md has the list, stage.py what they share."""
