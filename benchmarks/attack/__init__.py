"""Attack the product on loopback and count what falls: ``python -m benchmarks.attack`` (docs/reliability.md)."""
