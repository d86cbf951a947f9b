"""The real process between the two stand-ins; as in the folder above, a file for a layer."""
