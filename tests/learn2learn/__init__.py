"""Comparisons with learn2learn, if it is installed."""
