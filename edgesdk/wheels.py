"""Packages that are fetched for what they hold, and never installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: pip, without what lies in the folder one stands in, and without PYTHONPATH and the user's own packages.
PIP = (sys.executable, "-I", "-m", "pip")


@dataclass(frozen=True)
class Wheel:
    """One wheel of the package registry, pinned."""

    name: str
    version: str
    sha256: str


def download(wheels: tuple[Wheel, ...], folder: Path, platform: tuple[str, ...] = ()) -> str | None:
    """Fetch wheels into a folder with pip, hash-checked.

    Args:
        wheels: what to fetch, without what they depend on.
        folder: where they go.
        platform: pip's options for wheels of another machine.

    Returns: why it failed, or None.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(
        "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels), encoding="utf-8"
    )
    command = [*PIP, "download", "--quiet", "--no-deps", "--only-binary", ":all:", *platform]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    return errors[-1].removeprefix("ERROR: ") if errors else f"pip exited with status {done.returncode}"
