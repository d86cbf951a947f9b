"""What the bot costs: `python -m tests.bench`."""
