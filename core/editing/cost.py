"""Re-exports of :mod:`core.maml.cost` for callers that have not moved yet."""

from core.maml.cost import EVALUATION, LINE_SEARCH, PRODUCT, Cost, training_cost

__all__ = ["EVALUATION", "LINE_SEARCH", "PRODUCT", "Cost", "training_cost"]
