"""Interpret the names of tensors in checkpoints: prefixes of wrappers, losses and metrics, learned rates."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Name parts that ``torch.compile``, FSDP and activation checkpointing insert before the names of a module."""
DATA_PARALLEL = "module"
"""Name part that ``DataParallel``, ``DistributedDataParallel``, ``AveragedModel`` and learn2learn insert."""
_LOSS_OR_METRIC = re.compile(
    r"(.*_)?(loss|losses|criterion|criteria|metrics?)(_.*|\d*)"
    r"|(ce|bce|mse|nll|kl|focal|triplet|dice|hinge|contrastive|cross_?entropy|bcewithlogits)loss"
    r"|(pos|class|label|sample)_?weights?"  # torch.nn: CrossEntropyLoss, BCEWithLogitsLoss(pos_weight)
    r"|((train|val|valid|test|best)_?)?(acc|accuracy|auroc|f1|f1_?score|conf_?mat|confusion_?matrix)"
    r"|(binary|multi(class|label))\w+|n_averaged"  # torchmetrics; torch.optim.swa_utils.AveragedModel
)
_MAX_PREFIX = 32  # parts of a prefix
_RATES = re.compile(r"(.*_)?(lrs?|learning_rates?|rates|alphas?)(_.*|\d*)|compute_update")


def is_loss_or_metric(name: str) -> bool:
    """Return whether a tensor is clearly that of a loss, a metric or a counter, by the parts of its name."""
    return any(_LOSS_OR_METRIC.fullmatch(part) for part in name.lower().split("."))


def is_learned_rate(name: str) -> bool:
    """Return whether a tensor could be a learned inner rate or update, by the parts of its name."""
    return any(_RATES.fullmatch(part) for part in name.lower().split("."))


def without_parts(names: Collection[str], parts: Collection[str] = _WRAPPERS) -> dict[str, str]:
    """Return the original names by the names without ``parts``; names that would become equal stay unchanged."""
    plain: dict[str, list[str]] = {}
    for name in names:
        *above, last = name.split(".")
        plain.setdefault(".".join([*(part for part in above if part not in parts), last]), []).append(name)
    return {
        name if len(originals) == 1 else original: original
        for name, originals in plain.items()
        for original in originals
    }


def prefixes(names: Collection[str], wanted: Collection[str]) -> Iterator[str]:
    """Yield, for every name that ends with a wanted name, the prefix before it: empty, or with a dot at its end."""
    depth = max((name.count(".") + 1 for name in wanted), default=0)
    for name in names:
        parts = name.split(".")
        for start in range(max(0, len(parts) - depth), min(len(parts), _MAX_PREFIX + 1)):
            if ".".join(parts[start:]) in wanted:
                yield "".join(f"{part}." for part in parts[:start])
