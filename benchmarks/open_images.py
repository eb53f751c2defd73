"""Measure how long reading many images takes, and how much memory opening them takes.

``python -m benchmarks.open_images --count 100000`` writes that many random 84 x 84 JPEGs into class folders, lists
them, reads them into an image set and opens it, each in a separate process, and compares with torchvision's
``ImageFolder`` and with loading all of them into one array in memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, CLASSES = 84, 100

OPEN = """
import psutil, time, numpy as np
from core.data import load_images
process, start = psutil.Process(), time.perf_counter()
images = load_images("many")
images.hash, images.index
seconds = time.perf_counter() - start
for seed in range(100):  # a hundred tasks of 100 images
    images.images[np.random.default_rng(seed).choice(len(images), 100, replace=False)]
print(f"{seconds:.1f} {process.memory_info().rss / 1e9:.2f}")
"""
LIST = """
import psutil, sys, time
from pathlib import Path
from core.data.readers import read_listing
start = time.perf_counter()
read_listing(Path(sys.argv[1]))
print(f"{time.perf_counter() - start:.1f} {psutil.Process().memory_info().rss / 1e9:.2f}")
"""
INSPECT = """
import psutil, sys, time
from pathlib import Path
from core.actions.image_settings import ImportOptions
from core.actions.inspect import inspect_images
start = time.perf_counter()
inspect_images(Path(sys.argv[1]), ImportOptions())
print(f"{time.perf_counter() - start:.1f} {psutil.Process().memory_info().rss / 1e9:.2f}")
"""
IMAGE_FOLDER = """
import psutil, sys, time
from torchvision.datasets import ImageFolder
start = time.perf_counter()
ImageFolder(sys.argv[1])
print(f"{time.perf_counter() - start:.1f} {psutil.Process().memory_info().rss / 1e9:.2f}")
"""
PLAIN = """
import psutil, sys, time, numpy as np
from pathlib import Path
from PIL import Image
start = time.perf_counter()
files = sorted(Path(sys.argv[1]).rglob("*.jpg"))
images = np.stack([np.asarray(Image.open(file)) for file in files])
print(f"{time.perf_counter() - start:.1f} {psutil.Process().memory_info().rss / 1e9:.2f}")
"""


def _write(job: tuple[str, int, int]) -> None:
    folder, start, stop = job
    for number in range(start, stop):
        rng = np.random.default_rng(number)
        low = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        place = Path(folder) / f"c{number % CLASSES:03d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(low).resize((SIDE, SIDE)).save(place / f"{number:06d}.jpg", quality=85)


def main() -> None:
    """Run the benchmark and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as temporary:
        pictures, home = Path(temporary) / "pictures", Path(temporary) / "home"
        jobs = [(str(pictures), start, min(start + 1000, count)) for start in range(0, count, 1000)]
        for job in jobs:
            _write(job)
        environment = {**os.environ, "TASKLENS_HOME": str(home)}

        def run(*args: str) -> str:
            command = [sys.executable, *args]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

        start = time.perf_counter()
        run("-m", "core", "data", "--path", str(pictures), "--name", "many")
        import_seconds = time.perf_counter() - start
        import_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        opened, plain = run("-c", OPEN).split(), run("-c", PLAIN, str(pictures)).split()
        files = sorted(file.relative_to(temporary) for file in pictures.rglob("*.jpg"))
        table = Path(temporary) / "labels.csv"
        table.write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in files))
        listed, by_table = (run("-c", LIST, str(place)).split() for place in (pictures, table))
        folder, inspected = (run("-c", code, str(pictures)).split() for code in (IMAGE_FOLDER, INSPECT))
    print(f"{count:,} images of {SIDE} x {SIDE} x 3")
    print(f"{'':<44}{'seconds':>9}{'GB':>7}")
    print(f"{'list class folders':<44}{listed[0]:>9}{listed[1]:>7}")
    print(f"{'list a table of paths':<44}{by_table[0]:>9}{by_table[1]:>7}")
    print(f"{'list class folders by torchvision':<44}{folder[0]:>9}{folder[1]:>7}")
    print(f"{'inspect: look at the header of every image':<44}{inspected[0]:>9}{inspected[1]:>7}")
    print(f"{'import into an image set':<44}{import_seconds:>9.1f}{import_gb:>7.2f}")
    print(f"{'open the set and draw 100 tasks':<44}{opened[0]:>9}{opened[1]:>7}")
    print(f"{'decode all into one array, at every start':<44}{plain[0]:>9}{plain[1]:>7}")


if __name__ == "__main__":
    main()
