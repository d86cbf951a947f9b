"""What the owner runs beside the bot: --check, --once, --adopt."""
