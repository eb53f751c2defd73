"""Against learn2learn itself, where it is installed."""
