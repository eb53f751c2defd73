"""The figures that the paper prints (Table 1), to stand beside ours: accuracy and seconds, each mean and spread.

Of its figures 1 and 2 it gives the values quoted in sections 6.3 and 6.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.experiments.profiles import DATA


@dataclass(frozen=True)
class Printed:
    """Accuracy and running time, mean and standard deviation over five seeds."""

    accuracy: float
    accuracy_sd: float
    seconds: float
    seconds_sd: float

    @property
    def accuracy_words(self) -> str:
        return f"{self.accuracy:.4f} ± {self.accuracy_sd:.4f}"

    @property
    def seconds_words(self) -> str:
        return f"{self.seconds:.2f} ± {self.seconds_sd:.2f}"


# By method, of the data sets in the order of DATA.
_TASKS = {
    "retrain": (
        (0.7908, 0.0061, 316.74, 8.45),
        (0.6373, 0.0311, 244.24, 2.18),
        (0.3071, 0.0460, 682.56, 7.91),
        (0.3599, 0.0002, 362.02, 0.01),
    ),
    "task-if": (
        (0.7804, 0.0116, 65.69, 3.41),
        (0.6118, 0.0469, 45.72, 0.46),
        (0.2688, 0.0322, 74.63, 1.40),
        (0.3403, 0.0485, 56.20, 1.71),
    ),
    "direct-if": (
        (0.5422, 0.0292, 7.46, 0.05),
        (0.3247, 0.0224, 7.37, 0.04),
        (0.2214, 0.0136, 10.24, 0.05),
        (0.2906, 0.0013, 10.63, 0.01),
    ),
    "ekfac": (
        (0.4872, 0.0001, 631.90, 10.05),
        (0.4764, 0.0123, 630.96, 20.02),
        (0.1868, 0.0106, 1937.42, 41.25),
        (0.3133, 0.0021, 648.41, 30.21),
    ),
    "trak": (
        (0.3076, 0.0001, 1022.52, 3.49),
        (0.4160, 0.0001, 1020.60, 0.01),
        (0.2592, 0.0270, 1154.17, 0.17),
        (0.3242, 0.0004, 2776.14, 25.34),
    ),
    "tracin": (
        (0.7690, 0.0001, 375.42, 0.65),
        (0.5844, 0.0012, 376.85, 0.63),
        (0.2592, 0.0270, 1154.16, 0.18),
        (0.2607, 0.0022, 481.37, 8.76),
    ),
}
_INSTANCES = {
    "retrain-support": (
        (0.7852, 0.0080, 251.76, 1.21),
        (0.6540, 0.0148, 252.80, 1.07),
        (0.3263, 0.0574, 392.24, 0.40),
        (0.3549, 0.0058, 361.99, 0.01),
    ),
    "instance-if-support": (
        (0.7686, 0.0037, 4.49, 0.02),
        (0.6123, 0.0225, 4.53, 0.02),
        (0.2854, 0.0424, 7.17, 0.03),
        (0.3645, 0.0001, 7.23, 0.08),
    ),
    "retrain-query": (
        (0.7895, 0.0080, 260.48, 7.62),
        (0.6265, 0.0410, 210.76, 93.10),
        (0.3222, 0.0601, 358.49, 13.08),
        (0.3651, 0.0030, 360.73, 0.06),
    ),
    "instance-if-query": (
        (0.7790, 0.0106, 5.53, 0.06),
        (0.5476, 0.0924, 5.71, 0.51),
        (0.2767, 0.0350, 7.47, 0.83),
        (0.3698, 0.0023, 7.21, 0.04),
    ),
}


def printed(method: str, data: str) -> Printed | None:
    """What Table 1 says of a method on a data set."""
    row = (_TASKS | _INSTANCES).get(method)
    return Printed(*row[DATA.index(data)]) if row else None
