"""The bilevel model: backbone, adaptation, weighted objective, training, checkpoints."""
