"""Servers that take the places of Discord and ComfyUI in tests, demo and bench."""
