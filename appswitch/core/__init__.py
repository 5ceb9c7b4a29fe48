"""The decisions: no I/O, no clock, no trio; what is random comes in as an argument (DESIGN 3.7)."""
