"""Measure what takes too long for a test; each module is a command that prints a table."""
