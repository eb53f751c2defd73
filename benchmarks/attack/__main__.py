"""Attack the product and count what falls: ``python -m benchmarks.attack`` prints a table, and exits with 1 if any did.

Everything stays on this machine, in temporary folders and on loopback. ``--effort 1`` takes about 20 minutes on two
cores; the counts grow with it. ``--part`` repeats a part; docs/reliability.md has the figures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from benchmarks.attack.disks import attack_disks
from benchmarks.attack.door import attack_door
from benchmarks.attack.files import attack_files
from benchmarks.attack.homes import attack_homes
from benchmarks.attack.inputs import attack_inputs
from benchmarks.attack.kills import attack_writers
from benchmarks.attack.tabs import attack_tabs

Outcome = tuple[int, str, list[str]]
"""Number of attacks, what came of them in words, and those that the product did not stand."""


def door(_: float) -> Outcome:
    """Forged requests."""
    found = attack_door()
    return found.refused + len(found.wrong), f"{found.refused:,} refused; {found.own} of its own pass", found.wrong


def inputs(effort: float) -> Outcome:
    """Values of widgets."""
    found = attack_inputs(int(10_000 * effort))
    wrong = [*found.bugs, *found.redacted, *found.silent, *([] if found.answers_at_end else ["no answer at the end"])]
    return found.sent, f"{found.refused} were no values of the widget's type", wrong


def files(effort: float) -> Outcome:
    """Files that users give."""
    counts, wrong = attack_files(max(1, int(30 * effort)))
    return counts.total(), f"{counts['refused']:,} refused, {counts['read']:,} read", wrong


def homes(effort: float) -> Outcome:
    """Files of a home."""
    counts, wrong = attack_homes(int(1000 * effort))
    return counts.total() + len(wrong), f"{counts['named']:,} named, {counts['accepted']:,} without harm", wrong


def disks(effort: float) -> Outcome:
    """Faults of the disk."""
    number, wrong = attack_disks(max(1, int(4 * effort)))
    return number, "nothing acknowledged was lost" if not wrong else "", wrong


def kills(effort: float) -> Outcome:
    """Kills of writers."""
    number = max(1, int(50 * effort))
    wrong = attack_writers(number)
    return number, "nothing acknowledged was lost" if not wrong else "", wrong


def tabs(effort: float) -> Outcome:
    """Ten tabs at once."""
    found = attack_tabs(540 * effort)
    lost = found.keys - found.saved
    return (
        found.keys,
        f"{found.saved:,} keys saved; a flip takes {found.median:.2f} s, 95 % at most {found.p95:.2f} s "
        f"({len(found.flips)} flips); server {found.megabytes[0]:.0f} MB at first, {found.megabytes[-1]:.0f} at last",
        [f"{lost} keys lost"] if lost else [],
    )


PARTS: dict[str, Callable[[float], Outcome]] = {
    part.__name__: part for part in (door, inputs, files, homes, disks, kills, tabs)
}


def main() -> None:
    """Run the parts and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--effort", type=float, default=1.0)
    arguments.add_argument("--part", choices=PARTS, action="append")
    given, all_wrong = arguments.parse_args(), []
    print(f"{'part':<10}{'attacks':>9}{'fell':>6}{'seconds':>9}  outcome", flush=True)
    for name in given.part or PARTS:
        start = time.monotonic()
        number, words, wrong = PARTS[name](given.effort)
        print(f"{name:<10}{number:>9,}{len(wrong):>6}{time.monotonic() - start:>9.0f}  {words}", flush=True)
        all_wrong += [f"{name}: {one}" for one in wrong]
    for one in all_wrong:
        print(f"\n{one}")
    raise SystemExit(bool(all_wrong))


if __name__ == "__main__":
    main()
