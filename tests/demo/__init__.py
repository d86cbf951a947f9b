"""A conversation to look at: `python -m tests.demo`."""
