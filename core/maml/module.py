"""Convert PyTorch modules to pure functions of (parameters, images).

The engine differentiates twice through the adaptation, over many tasks at once, so the output of a module must depend
only on its parameters and its input. :func:`prepare` changes modules accordingly. Other modules are rejected, by it or
by the trial run of :func:`probe`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin

from core.maml.adaptation import RATE_PREFIX, Unrolled
from core.maml.backbone import Params, Shapes, batch_norm
from core.maml.episodes import sum_over_tasks
from core.maml.forward import jvp
from core.maml.objective import Bilevel, Task
from core.runtime.errors import UserError

RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Names of the buffers of batch normalisation."""
_SUPPORTED_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CALL_LOCK = RLock()
_ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)

Out = TypeVar("Out")


class BatchStatistics(nn.Module):
    """A stateless batch normalisation that uses the statistics of the current batch in every mode."""

    def __init__(self, like: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.epsilon = like.weight, like.bias, like.eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``, ``(n, channels, ...)``."""
        return batch_norm(x, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class ModuleNet:
    """A network that is defined by a PyTorch module.

    Attributes:
        name: Name with all hyperparameters; networks of equal name and code compute the same function.
        shape: Height, width and channels of the images.
        build: Function that returns a new module, initialised with the global random number generator of PyTorch.
        code: Hash of the code of a factory, which distinguishes networks of the same name before and after a change.
        is_builtin: Whether the module is one of :mod:`core.maml.architectures`. These have no constants, so their
            shapes can be determined without memory for the weights.
        module: The prepared module.
        notes: One sentence per change that made the module a pure function.
    """

    name: str
    ways: int
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module] = field(repr=False, compare=False)
    code: str = ""
    is_builtin: bool = field(default=False, repr=False)
    module: nn.Module = field(init=False, repr=False, compare=False)
    notes: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Prepare now, because weights cannot be initialised during differentiation.
        with torch.device("meta") if self.is_builtin else nullcontext():
            module, notes = prepare(self.build(), self.name)
        object.__setattr__(self, "module", module)
        object.__setattr__(self, "notes", notes)

    @property
    def shapes(self) -> Shapes:
        """Return the shape of every parameter, in the order of ``module.parameters()``."""
        return {name: tuple(value.shape) for name, value in self.module.named_parameters()}

    @property
    def aliases(self) -> dict[str, str]:
        """Return the further names of shared parameters in a state dict, with the name of each in :attr:`shapes`."""
        first_name = {id(value): name for name, value in self.module.named_parameters()}
        names = self.module.named_parameters(remove_duplicate=False)
        return {name: first_name[id(value)] for name, value in names if first_name[id(value)] != name}

    @property
    def constants(self) -> Params:
        """Return the buffers, which the module reads but never changes."""
        return dict(self.module.named_buffers())

    @cached_property
    def last_linear(self) -> str | None:
        """Return the name of the last linear layer in registration order, or None."""
        linear = [name for name, part in self.module.named_modules() if name and isinstance(part, nn.Linear)]
        return linear[-1] if linear else None

    @property
    def head(self) -> str:
        """Return :attr:`last_linear`, the layer that ANIL adapts; raise UserError if there is none."""
        if self.last_linear is None:
            raise UserError(f"{self.name} has no linear layer that anil could adapt.", "Use maml.")
        return self.last_linear

    def init(self, seed: int, dtype: torch.dtype = torch.float32) -> Params:
        """Return new parameters on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            module = self.build()
        return {name: value.detach().to(dtype).clone() for name, value in module.named_parameters()}

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Return the logits ``(n, ways)`` of images ``(n, channels, height, width)`` in [0, 1]."""
        constants = {
            name: value.to(x.device, x.dtype if value.is_floating_point() else value.dtype)
            for name, value in self.constants.items()
        }
        # functional_call replaces the parameters of the module while it runs, so only one thread can run it at a time.
        # The other attention kernels have no forward-mode derivative.
        with _CALL_LOCK, sdpa_kernel(SDPBackend.MATH):
            return functional_call(self.module, params | constants, (x,), strict=True)

    def state_dict(self, params: Params) -> Params:
        """Return a state dict that a new module loads with ``strict=True``; running statistics are initial values."""
        module = self.build().to(next(iter(params.values())).dtype)
        module.load_state_dict(params, strict=False)
        return {name: value.detach().contiguous() for name, value in module.state_dict().items()}


def prepare(module: nn.Module, name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """Change ``module`` in place so that its output depends only on parameters and input.

    Returns:
        The module, in evaluation mode except for attention layers, and one sentence per kind of change.

    Raises:
        UserError: a part of the module cannot be changed accordingly.
    """
    _check_supported(module, name)
    notes = []
    if tracked := _replace_batch_norms(module):
        notes.append(
            f"Batch normalisation (layers: {tracked}) uses the statistics of the current batch instead of running "
            "statistics, as MAML does in training."
        )
    dropouts = sum(
        (isinstance(part, _DropoutNd) and part.p > 0) or (isinstance(part, nn.MultiheadAttention) and part.dropout > 0)
        for part in module.modules()
    )
    if dropouts:
        notes.append(f"Dropout is disabled (layers: {dropouts}), because the loss must be deterministic.")
    module.eval()
    for part in module.modules():
        if isinstance(part, _ATTENTION):  # evaluation mode would use a kernel without derivatives
            part.training = True
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
        if isinstance(part, _InstanceNorm):
            part.track_running_stats = False
            for buffer in RUNNING_STATISTICS:
                setattr(part, buffer, None)
        if getattr(part, "inplace", False) is True:
            vars(part)["inplace"] = False
    for buffer, _ in module.named_buffers():
        if buffer.rsplit(".", 1)[-1] in RUNNING_STATISTICS:
            raise _unsupported(name, f"{buffer!r} is a running statistic of a layer that is not a PyTorch BatchNorm")
    return module, tuple(notes)


def _check_supported(module: nn.Module, name: str) -> None:
    for path, part in module.named_modules():
        kind, where = type(part).__name__, f"its submodule {path!r}" if path else "it"
        if isinstance(part, (torch.jit.ScriptModule, *_WRAPPERS)):
            raise _unsupported(name, f"{where} is a {kind}", "Return the plain module.")
        if isinstance(part, LazyModuleMixin):
            raise _unsupported(name, f"{where} is an uninitialised {kind}", "Specify its input size.")
        if isinstance(part, nn.RNNBase):
            raise _unsupported(name, f"{where} is a {kind}, which PyTorch cannot differentiate twice under vmap")
        if isinstance(part, _BatchNorm) and type(part) not in _SUPPORTED_BATCH_NORMS:
            raise _unsupported(name, f"{where} is a {kind}, an unsupported batch normalisation")
    parameters = dict(module.named_parameters())
    if not parameters:
        raise _unsupported(name, "it has no parameters")
    for path, value in parameters.items():
        if path.startswith(RATE_PREFIX):
            raise _unsupported(name, f"its parameter {path!r} has the prefix of learned inner rates", "Rename it.")
        if not value.is_floating_point():
            raise _unsupported(name, f"its parameter {path!r} is {value.dtype}")
        if not value.requires_grad:
            raise _unsupported(
                name,
                f"its parameter {path!r} is frozen, but every parameter is a meta-parameter",
                "Unfreeze it, or register it as a buffer that the factory fills.",
            )


def _unsupported(name: str, why: str, fix: str = "Change it, or use another network.") -> UserError:
    return UserError(f"{name} is not supported: {why}.", fix)


def _replace_batch_norms(module: nn.Module) -> int:
    """Replace batch normalisations by :class:`BatchStatistics` and return how many tracked running statistics."""
    replacements: dict[int, BatchStatistics] = {}
    tracked = 0
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, _BatchNorm):
                if id(child) not in replacements:
                    replacements[id(child)] = BatchStatistics(child)
                    tracked += child.track_running_stats
                parent._modules[name] = replacements[id(child)]
    return tracked


def probe(network: ModuleNet) -> None:
    """Run the module as the engine does: forward, and forward-over-reverse through one adaptation of two tasks.

    Raises:
        UserError: the module does not support an operation that the engine needs; the message says which.
    """
    params = network.init(0)
    generator = torch.Generator().manual_seed(0)
    height, width, channels = network.shape
    rows = network.ways
    x = torch.rand(4, rows, channels, height, width, generator=generator)
    _probe_forward(network, params, x[0])
    y = torch.arange(rows).expand(2, rows)
    ones = torch.ones(2, rows)
    model = Bilevel(network, Unrolled(1, 0.01), 0.0)
    gradient = grad(sum_over_tasks(model.task_loss))
    chunk = Task(x[:2], y, ones, x[2:], y, ones)
    derivatives = _run_user_code(
        network.name,
        "PyTorch cannot differentiate it twice through an adaptation under vmap",
        lambda: jvp(lambda p: gradient(p, chunk), (params,), (params,)),
    )
    if not all(value.isfinite().all() for part in derivatives for value in part.values()):
        raise _unsupported(network.name, "its second derivatives are not finite on random images")


def _probe_forward(network: ModuleNet, params: Params, x: Tensor) -> None:
    before = {name: value.clone() for name, value in network.constants.items()}
    size = "x".join(map(str, x.shape[1:]))
    fault = f"it does not run on images of {size} (channels first)"
    out = _run_user_code(network.name, fault, lambda: network(params, x))
    expected = (len(x), network.ways)
    if not isinstance(out, Tensor) or out.shape != expected:
        actual = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise _unsupported(network.name, f"it returns {actual}, but the logits must have shape {expected}")
    if not out.isfinite().all():
        raise _unsupported(network.name, "its logits are not finite on random images")
    changed = [name for name, value in network.constants.items() if not torch.equal(value, before[name])]
    if changed:
        raise _unsupported(network.name, f"its buffer {changed[0]!r} changes in the forward pass")
    if not torch.equal(out, network(params, x)):
        raise _unsupported(network.name, "two runs on the same images differ", "Remove random numbers and state.")
    other = ModuleNet(network.name, network.ways, network.shape, network.build)
    if not all(map(torch.equal, other.constants.values(), before.values())):
        raise _unsupported(network.name, "its buffers differ in every instance", "Fill them without random numbers.")


def _run_user_code(name: str, fault: str, function: Callable[[], Out]) -> Out:
    try:
        return function()
    except UserError:
        raise
    except Exception as error:  # user code may raise any exception
        message = (str(error).strip().splitlines() or [""])[0]
        raise _unsupported(name, f"{fault} ({type(error).__name__}: {message})") from error
