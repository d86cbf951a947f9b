"""What people see in Discord: a file for each command or message."""
