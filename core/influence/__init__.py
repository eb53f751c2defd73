"""The bilevel influence engine: target gradients, curvature products, solvers, and scores in one pass."""
