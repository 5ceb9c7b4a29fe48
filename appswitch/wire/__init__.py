"""Bytes to model and back: nothing is read from or written to a socket here."""
