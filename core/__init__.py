"""TaskLens: data influence for MAML few-shot image classifiers."""

__version__ = "0.1.0"
