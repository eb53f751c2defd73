"""Install learn2learn 0.2.0: ``make learn2learn``, or ``python -m tests.learn2learn.install``. Once is enough.

Its source archive holds C files made by an old Cython, which do not compile on Python 3.11 and newer, and setup.py asks
for packages that its import does not need (gsutil). So the C files are made anew from the Cython sources, in an
environment of their own, and the wheel is installed without its declared dependencies, which
requirements-learn2learn.txt replaces.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

VERSION = "0.2.0"
NEEDED = Path(__file__).parents[2] / "requirements-learn2learn.txt"


def installed() -> bool:
    """Whether it is there with the one package it needs that nothing else here does; its import takes seconds."""
    try:
        return version("learn2learn") == VERSION and bool(version("gym"))
    except PackageNotFoundError:
        return False


def pip(python: str | Path, *arguments: str | Path) -> None:
    run(python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def run(*command: str | Path, folder: Path | None = None) -> None:
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        raise SystemExit(
            f"learn2learn {VERSION} was not installed; the step above failed (it needs the package index and a C "
            "compiler). TaskLens runs without it; only the tests that compare with it are absent."
        )


def install(folder: Path) -> None:
    pip(sys.executable, "install", "-r", NEEDED)
    venv.create(folder / "build", with_pip=True)
    python = folder / "build" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip(python, "install", "cython>=3", "setuptools>=70.1")
    source = f"learn2learn=={VERSION}"
    pip(python, "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", folder, source)
    with tarfile.open(next(folder.glob("learn2learn-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    unpacked = next(path for path in folder.glob("learn2learn-*") if path.is_dir())
    for stale in (unpacked / "learn2learn" / "data").glob("*.c"):
        stale.unlink()
    run(python, "setup.py", "build_ext", "bdist_wheel", folder=unpacked)
    wheel = next((unpacked / "dist").glob("*.whl"))
    pip(sys.executable, "install", "--no-deps", "--force-reinstall", wheel)


def main() -> None:
    if installed():
        return
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
    run(sys.executable, "-c", "import learn2learn")
    print(f"learn2learn {VERSION} is installed.", file=sys.stderr)


if __name__ == "__main__":
    main()
