"""Random faults, kills and restarts against the real process."""
