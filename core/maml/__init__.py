"""Implement the bilevel model: backbones, adaptation, the weighted objective and training."""
