"""Can a ranking be trusted? Measured against what is known."""
