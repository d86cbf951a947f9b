"""A stand-in for Discord: the rules, the people, the gateway, the REST API, the whole."""
