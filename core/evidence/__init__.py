"""How well rankings predict retraining and detect injected label noise."""
