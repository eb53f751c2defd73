"""Recommend which training data look wrong: choose a score on label noise injected into a copy of these data."""
