"""Detect label errors: scores, their calibration, the review queue, and the forecast of what remains."""
