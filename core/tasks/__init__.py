"""Few-shot task lists: their file form, sampling, planted noise, and cleaning."""
