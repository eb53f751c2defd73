"""From a removal set to an edited model: linear edit, fine-tune, retrain, and removal curves."""
