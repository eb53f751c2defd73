"""Settings of edits and of removal curves; importing them is light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, Lt

from core.maml.settings import TrainSettings
from core.runtime.errors import UserError
from core.runtime.settings import Setting, check_settings

if TYPE_CHECKING:
    from core.maml.cost import Cost

CONTROL_OF = {"newton": "newton-all", "steps": "steps-all", "finetune": "finetune-all", "retrain": "retrain-all"}
"""The control of each measured method: the same procedure, settings and seed on the unchanged tasks."""
CONTROLS = tuple(CONTROL_OF.values())
METHOD_OF = {control: method for method, control in CONTROL_OF.items()}
"""The method that each control controls."""
ESTIMATES = ("linear",)
"""Methods that train nothing: their result predicts that of retraining. Without changes it is the unedited model."""
EDIT_METHODS = (*ESTIMATES, *CONTROL_OF, *CONTROLS)
DEFAULT_EDIT_METHODS = ("linear", "newton", "finetune")
"""Methods that take seconds."""
STARTS = ("fresh", "warm")
"""Where a retraining starts: at initial parameters as the model's training did, or at the present model."""
RANKED_ORDERS = ("harmful", "loss", "random")
"""Orders in which removal curves remove items by a ranking alone."""
ORDERS = ("recommended", *RANKED_ORDERS)
"""All orders; ``recommended`` needs a recommendation too."""
BY = ("tasks", "images")
"""Kinds of items that a ranking orders and that are removed by it."""


def possible_orders(has_recommendation: bool) -> tuple[str, ...]:
    """Return the orders that a removal curve can compare, which are its default: the recommended one first, if any."""
    return ORDERS if has_recommendation else RANKED_ORDERS


@dataclass(frozen=True)
class FinetuneSettings:
    """The length of fine-tunes; their other settings are those of :data:`FINETUNE`."""

    finetune_steps: Annotated[int, Ge(1), Setting("Adam steps of each fine-tune.", label="Fine-tune steps")] = 40

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def training(self) -> TrainSettings:
        """Return the settings of the fine-tune."""
        return TrainSettings(iterations=self.finetune_steps, learning_rate=1e-3, polish=0)


FINETUNE = FinetuneSettings().training
"""Default fine-tune of edits and removal curves."""


@dataclass(frozen=True)
class EditSettings:
    """Which edits to make, and how far steps go."""

    methods: Annotated[
        tuple[str, ...],
        Setting(
            "Edit method; repeat the option for several. Default: those that take seconds, which are "
            f"{', '.join(DEFAULT_EDIT_METHODS)}. The control of a method, which ends in -all, is computed with it.",
            label="Edit methods",
            option="how",
            choices=EDIT_METHODS,
            repeat=True,
        ),
    ] = DEFAULT_EDIT_METHODS
    budget: Annotated[
        float,
        Gt(0),
        Le(1),
        Setting("Cost of steps, as a share of the cost of training the model; at least 40 steps are taken."),
    ] = 0.1
    rewind: Annotated[
        bool,
        Setting(
            "Start steps at the training snapshot with the lowest loss on some validation tasks (held-out tasks if "
            "there are none), if snapshots were kept; otherwise at the present model."
        ),
    ] = True

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class NewtonSettings:
    """The sample sizes of a Newton step (:mod:`core.editing.newton`)."""

    gradient_tasks: Annotated[
        int,
        Ge(0),
        Setting("Tasks that newton averages the gradient and its trials over; 0 means all.", option="newton-tasks"),
    ] = 64
    curvature_tasks: Annotated[
        int,
        Ge(0),
        Setting(
            "Tasks that newton averages the curvature over; 0 means all.",
            label="Newton curvature tasks",
            option="newton-curvature-tasks",
        ),
    ] = 16
    products: Annotated[
        int,
        Ge(1),
        Setting(
            "Curvature products of newton: the dimension of its Krylov space.",
            label="Newton products",
            option="newton-products",
        ),
    ] = 5
    seed: Annotated[
        int, Ge(0), Setting("Seed of the draw of tasks for newton.", label="Newton seed", option="newton-seed")
    ] = 0

    def __post_init__(self) -> None:
        check_settings(self)

    def cost(self, tasks: int) -> Cost:
        """Return the cost of a step on ``tasks`` tasks."""
        from core.editing.newton import SHARES
        from core.maml.cost import Cost

        gradients, curvature = (min(size or tasks, tasks) for size in (self.gradient_tasks, self.curvature_tasks))
        return Cost(gradients, curvature * self.products, gradients * len(SHARES))


NEWTON = NewtonSettings()
"""Default Newton step."""


@dataclass(frozen=True)
class CurveSettings:
    """What removal curves remove, and how much.

    Attributes:
        orders: Empty: :func:`possible_orders`, which depend on the workspace.
        shares: Shares of all training tasks or images removed, each in [0, 1).
        seeds: Number of repetitions; a seed draws the random part and the order of the fine-tune's tasks.
    """

    by: Annotated[str, Setting("What to remove.", label="Remove", choices=BY)] = "tasks"
    shares: Annotated[
        tuple[float, ...], Ge(0), Lt(1), Setting("Shares to remove, separated by commas.", label="Shares removed")
    ] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    orders: Annotated[
        tuple[str, ...],
        Setting(
            "Orders of removal, separated by commas: recommended (most suspicious first; needs a recommendation), "
            "harmful (most harmful first), loss (highest loss first), random. Default: all, without "
            "recommended if the workspace has no recommendation.",
            choices=ORDERS,
            words={"auto": ()},
        ),
    ] = ()
    seeds: Annotated[int, Ge(1), Setting("Repetitions, each with another seed.")] = 3

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.shares:
            raise UserError("A curve needs at least one share.", "For example --shares 0,0.1,0.2.")
