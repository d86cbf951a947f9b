"""What runs the bot for a test, the demo or the bench."""
