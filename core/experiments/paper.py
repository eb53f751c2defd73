"""The numbers of the paper's Table 1, shown beside ours: accuracy and seconds, each with mean and standard deviation.

Of its figures 1 and 2 the paper gives the values quoted in its sections 6.3 and 6.4.
"""

from __future__ import annotations

from core.experiments.formatting import with_spread
from core.experiments.profiles import DATA

# Per method: accuracy, its standard deviation, seconds, their standard deviation, for the data sets in order of DATA.
_TABLE = """
retrain .7908 .0061 316.74 8.45 | .6373 .0311 244.24 2.18 | .3071 .0460 682.56 7.91 | .3599 .0002 362.02 .01
task-if .7804 .0116 65.69 3.41 | .6118 .0469 45.72 .46 | .2688 .0322 74.63 1.40 | .3403 .0485 56.20 1.71
direct-if .5422 .0292 7.46 .05 | .3247 .0224 7.37 .04 | .2214 .0136 10.24 .05 | .2906 .0013 10.63 .01
ekfac .4872 .0001 631.90 10.05 | .4764 .0123 630.96 20.02 | .1868 .0106 1937.42 41.25 | .3133 .0021 648.41 30.21
trak .3076 .0001 1022.52 3.49 | .4160 .0001 1020.60 .01 | .2592 .0270 1154.17 .17 | .3242 .0004 2776.14 25.34
tracin .7690 .0001 375.42 .65 | .5844 .0012 376.85 .63 | .2592 .0270 1154.16 .18 | .2607 .0022 481.37 8.76
retrain-support .7852 .0080 251.76 1.21 | .6540 .0148 252.80 1.07 | .3263 .0574 392.24 .40 | .3549 .0058 361.99 .01
instance-if-support .7686 .0037 4.49 .02 | .6123 .0225 4.53 .02 | .2854 .0424 7.17 .03 | .3645 .0001 7.23 .08
retrain-query .7895 .0080 260.48 7.62 | .6265 .0410 210.76 93.10 | .3222 .0601 358.49 13.08 | .3651 .0030 360.73 .06
instance-if-query .7790 .0106 5.53 .06 | .5476 .0924 5.71 .51 | .2767 .0350 7.47 .83 | .3698 .0023 7.21 .04
"""
PUBLISHED: dict[tuple[str, str], tuple[float, ...]] = {
    (method, data): tuple(map(float, numbers.split()))
    for method, _, row in (line.partition(" ") for line in _TABLE.strip().splitlines())
    for data, numbers in zip(DATA, row.split("|"), strict=True)
}
"""Accuracy, its standard deviation, seconds and theirs over five seeds, by method and data set."""


def published_cells(method: str, data: str) -> list[str]:
    """Return the paper's accuracy and seconds as table cells, empty where it reports nothing."""
    if (method, data) not in PUBLISHED:
        return ["", ""]
    accuracy, accuracy_sd, seconds, seconds_sd = PUBLISHED[method, data]
    return [with_spread(accuracy, accuracy_sd), with_spread(seconds, seconds_sd, ".2f")]
