"""What looks wrong, by the score that finds injected label noise best on these data."""
