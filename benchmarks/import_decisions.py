"""Time the import of decisions and comments into a new log: ``python -m benchmarks.import_decisions``."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from core.decisions.import_file import DecisionFile, ImportedComment, import_file
from core.decisions.log import Decision, DecisionLog, Item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=None, help="folder on the disk to measure; default: a temporary one"
    )
    folder = parser.parse_args().out
    print(f"load {os.getloadavg()[0]:.1f}; seconds, and seconds of the processor")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for comments, decisions in ((5_000, 0), (0, 20_000), (20_000, 20_000)):
            items = [Item("image", image_id=f"image{number}") for number in range(max(comments, decisions))]
            file = DecisionFile(
                "table.csv",
                [Decision(item, "keep", reviewer="ann") for item in items[:decisions]],
                [ImportedComment(item, "ann", "half a seven") for item in items[:comments]],
            )
            log = DecisionLog(Path(made) / f"{comments}-{decisions}.sqlite")
            for keep, what in ((False, "dry run"), (True, "import"), (True, "import again")):
                start, processor = time.perf_counter(), time.process_time()
                import_file(log, file, keep=keep)
                seconds, used = time.perf_counter() - start, time.process_time() - processor
                print(f"{comments:,} comments, {decisions:,} decisions, {what}: {seconds:.2f}, {used:.2f}")


if __name__ == "__main__":
    main()
