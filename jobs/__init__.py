"""From a draft to its pictures; nothing here speaks with Discord."""
