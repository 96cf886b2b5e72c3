"""``edgesdk doctor``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .terminal import echo, json_option, print_json, print_table

_SIGNS = {"error": "ERROR", "warning": "warning", "good": "ok", "note": "note"}


@click.command("doctor")
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@json_option
def command(artifact: Path | None, as_json: bool) -> int:
    """Check ARTIFACT, or run a tiny model through every converter installed.

    ARTIFACT is an .apk, .aab, .aar, .ipa, .app, .so, .xcframework, .whl or .deb, a Gradle or Xcode project, a
    deliverable, or a bundle: what Google Play or the App Store refuses today and will refuse (target SDK, debuggable,
    pages of native libraries, sizes, privacy manifests, SDK, icon), processors, alignment and compression, hashes,
    signatures, and the runtime against the program.

    The rules are data with dates (targets/*/stores.toml); how old they are is said. Exit 1 where something is refused.
    """
    return _converters(as_json) if artifact is None else _artifact(artifact, as_json)


def _artifact(path: Path, as_json: bool) -> int:
    from ..artifacts import examine_artifact

    findings = examine_artifact(path)
    wrong = [finding for finding in findings if finding.level == "error"]
    if as_json:
        print_json({"ok": not wrong, "findings": findings})
        return 1 if wrong else 0
    for finding in findings:
        echo(f"{_SIGNS[finding.level]:<8}{finding.place}: {finding.text}")
        if finding.hint:
            echo(f"{'':<8}  {finding.hint}")
    return 1 if wrong else 0


def _converters(as_json: bool) -> int:
    from .. import __version__
    from ..doctor import examine

    findings = examine()
    status = 0 if findings and all(finding.ok for finding in findings) else 1
    if as_json:
        print_json({"edgesdk": __version__, "python": sys.version.split()[0], "converters": findings})
        return status
    echo(f"edgesdk {__version__}, Python {sys.version.split()[0]}")
    print_table(
        ("converter", "works", "targets", ""),
        [(f.converter, "yes" if f.ok else "no", ", ".join(f.targets) or "-", f.detail) for f in findings],
    )
    return status
