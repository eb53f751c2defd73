"""Define the settings of models, training and computation, without importing PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict

from core.runtime.errors import UserError
from core.runtime.settings import Setting, check_settings

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float64")
INVERSES = ("cg", "ekfac")
"""Methods for the inverse of the inner Hessian, used by implicit adaptation."""
Backbone = Literal["convnet", "mlp", "omniglot-cnn", "omniglot-fc", "cnn4", "resnet12", "module"]
Algorithm = Literal["maml", "fomaml", "anil", "meta-sgd", "imaml"]


class ModelFields(BaseModel):
    """A base model with the fields of :class:`core.checkpoints.model.ModelSpec`.

    Attributes:
        backbone: See :mod:`core.maml.backbone` and :mod:`core.maml.architectures`; ``module`` is built by the factory.
        hidden: Widths of the hidden layers, or filters of the blocks of ``resnet12``.
        activation: Of ``convnet`` and ``mlp``; ResNet12 uses leaky ReLU and the other built-in networks use ReLU.
        steps, rate: Not used by ``imaml``; the rate is the initial value of the learned rates of ``meta-sgd``.
        factory: ``package.module:factory`` (:mod:`core.checkpoints.factory`), for ``module`` only.
        code: Hash of the factory code when the model was created, for ``module`` only.
        delta: Weight decay of the objective (a sum over tasks, :mod:`core.maml.objective`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Annotated[
        Backbone,
        Setting(
            "Network: convnet, mlp, learn2learn's omniglot-cnn, omniglot-fc, cnn4 (or mini-imagenet-cnn) or resnet12, "
            "or your own as package.module:factory, the function that builds it.",
            choices=(),
        ),
    ] = "convnet"
    algorithm: Annotated[
        Algorithm,
        Setting(
            "Meta-learning algorithm. fomaml: first order; anil: only the last layer adapts; meta-sgd: learned inner "
            "rates; imaml: the inner problem is proximal and solved."
        ),
    ] = "maml"
    ways: Annotated[int, Ge(2), Setting("Classes per task (N-way).", label="Ways")]
    filters: Annotated[
        int, Ge(1), Setting("Channels of every convolution block: 16, or 64 for learn2learn's networks.")
    ] = 16
    shape: Annotated[
        tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)], Annotated[int, Ge(1)]],
        Setting("Size of the images as HEIGHT,WIDTH,CHANNELS.", label="Image size"),
    ] = (28, 28, 1)
    pooling: Annotated[
        str,
        Setting(
            "Downsampling: stride, max or mean (convnet), max or stride (cnn4), mean or none (resnet12).",
            choices=("stride", "max", "mean", "none"),
        ),
    ] = "stride"
    blocks: Annotated[
        int, Ge(1), Le(32), Setting("Convolution blocks: 4 (convnet, omniglot-cnn; cnn4 has at most 4).")
    ] = 4
    hidden: Annotated[
        tuple[int, ...],
        Setting(
            "Layer widths of mlp (64, or none for a linear model), omniglot-fc or resnet12, separated by commas.",
            words={"none": ()},
        ),
    ] = (64,)
    shrink: Annotated[
        int, Ge(1), Setting("Average-pool the images over squares of this side before the mlp (mlp only).")
    ] = 1
    activation: Annotated[
        str,
        Setting(
            "Activation of convnet and mlp. relu is common in the literature, but its objective has no smooth minimum.",
            choices=("gelu", "tanh", "relu"),
        ),
    ] = "gelu"
    steps: Annotated[
        int, Ge(1), Setting("Gradient steps of the adaptation.", label="Inner steps", option="inner-steps")
    ] = 1
    rate: Annotated[
        float, Gt(0), Setting("Learning rate of the adaptation.", label="Inner rate", option="inner-rate")
    ] = 0.4
    proximity: Annotated[float, Gt(0), Setting("Weight of the proximal term (imaml only).")] = 1.0
    inner_tolerance: Annotated[
        float, Gt(0), Setting("Tolerance to which the inner problem is solved (imaml only).")
    ] = 1e-5
    delta: Annotated[
        float, Ge(0), Setting("Weight decay of the meta-objective, which is a sum over tasks.", label="Weight decay")
    ] = 0.1
    factory: str | None = None
    code: str = ""


@dataclass(frozen=True)
class TrainSettings:
    """A set of training settings that, for the same tasks and machine, always produces the same model.

    The learning rate of Adam decays from ``learning_rate`` to 0 along a cosine. The optional L-BFGS refinement stops
    when ``Stationarity.ratio`` is below ``tolerance``, or when it no longer improves. Defaults for a kind of data are
    those of its recipe (:mod:`core.maml.recipes`).

    Attributes:
        checks: If there are validation tasks, the step with the highest accuracy on them is kept, of this many evenly
            spaced ones; 0 keeps the last step.
        patience: Stops training after this many checks without a better one; 0 never stops it.
    """

    iterations: Annotated[int, Ge(0), Setting("Adam steps.", label="Training steps")] = 1200
    meta_batch: Annotated[int, Ge(1), Setting("Tasks per Adam step (meta-batch size).", label="Meta-batch size")] = 12
    learning_rate: Annotated[float, Gt(0), Setting("Initial learning rate of Adam; decays to 0 along a cosine.")] = 3e-3
    polish: Annotated[
        int, Ge(0), Setting("Maximum iterations of full-batch L-BFGS refinement after Adam.", label="L-BFGS refinement")
    ] = 0
    tolerance: Annotated[
        float, Ge(0), Setting("Gradient ratio at which the L-BFGS refinement stops.", label="Gradient ratio")
    ] = 1e-4
    seed: Annotated[int, Ge(0), Setting("Seed of the initial parameters and of the order of the tasks.")] = 0
    checks: Annotated[
        int,
        Ge(0),
        Setting(
            "Evaluations on the validation tasks during training; the best of these steps is kept. 0 keeps the last "
            "step.",
            label="Validation checks",
        ),
    ] = 20
    patience: Annotated[
        int, Ge(0), Setting("Stop after this many validation checks without a better one; 0 never stops.")
    ] = 0

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def words(self) -> str:
        """Return a one-line description."""
        refinement = f", then up to {self.polish:,} L-BFGS iterations" if self.polish else ""
        steps = f"{self.iterations:,} Adam steps of {self.meta_batch} tasks at rate {self.learning_rate:g}"
        return f"{steps}{refinement}, seed {self.seed}"

    def cache_key(self, *, validation: bool = False) -> dict[str, Any]:
        """Return the fields that determine a result, with those of the checks only if there are validation tasks.

        Runs of versions that had no checks are so found again.
        """
        without = () if validation else ("checks", "patience")
        return {name: value for name, value in asdict(self).items() if name not in without}


@dataclass(frozen=True)
class Compute:
    """The device, the precision and the chunk size (0: :func:`core.maml.passes.default_chunk_size`)."""

    device: Annotated[str, Setting("Device to compute on: auto, cpu, cuda or cuda:N.")] = "auto"
    dtype: Annotated[str, Setting("Floating-point precision.", label="Precision", choices=DTYPES)] = "float32"
    chunk: Annotated[int, Ge(0), Setting("Tasks computed at once; more take more memory. 0 chooses a fast number.")] = 0

    def __post_init__(self) -> None:
        check_settings(self)

    def torch_device(self) -> torch.device:
        """Return the device, ``auto`` being CUDA if available; raise UserError if it cannot be used."""
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"The device {self.device!r} is not available.", "Use auto or cpu.") from error
        return device

    def torch_dtype(self) -> torch.dtype:
        """Return the floating-point type."""
        import torch

        return torch.float64 if self.dtype == "float64" else torch.float32
