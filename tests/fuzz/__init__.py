"""Hostile input: whatever bytes come, a parser has a value or its one error for them (docs/reliability.md).

`parsers` has those in Python, `native` those in C, which are built with sanitizers; `python -m tests.fuzz` feeds them
for as long as asked.
"""
