"""Which ExecuTorch library an app links."""

from __future__ import annotations

from ...bundle import Manifest
from ..base import PackageError
from ..runtime import pinned_version

GROUP = "org.pytorch"
_ARTIFACTS = {
    "xnnpack": "executorch-android",
    "vulkan": "executorch-android-vulkan",
    "qualcomm": "executorch-android-qnn",
}


def executorch(manifest: Manifest) -> str:
    """The Maven coordinates of the runtime that a bundle's program needs.

    Raises:
        PackageError: there is none.
    """
    program = manifest.program
    if program.runtime != "executorch":
        raise PackageError(
            f"the bundle's runtime is {program.runtime}; the Android project runs ExecuTorch",
            hint="edgesdk export MODEL --target android-arm64",
        )
    delegate = program.facts.get("delegate")
    if delegate not in _ARTIFACTS:
        raise PackageError(
            f"there is no published Android library of ExecuTorch for the delegate {delegate!r}",
            hint=f"export for one of {', '.join(_ARTIFACTS)}",
        )
    return f"{GROUP}:{_ARTIFACTS[delegate]}:{pinned_version(manifest)}"
