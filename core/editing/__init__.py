"""Edit methods, from a linear edit to retraining; what-if estimates and removal curves."""
