"""The commands of the owner beside the bot: --check, --once, --adopt."""
