"""The Discord room: a file for each command or message that people see."""
