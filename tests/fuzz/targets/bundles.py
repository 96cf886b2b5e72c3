"""Bundles: manifests, folders, zips, and their programs in the runtimes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from random import Random
from typing import Any

from ...conftest import make_checkpoint
from ..case import Case, Files, Opener, placed
from ..containers import changed_words, changed_zip
from ..odd import changed_bytes
from ..trees import changed_tree, written_json

_MANIFEST = "manifest.json"


def exported(folder: Path, target: str, **options: Any) -> Path:
    """A bundle of the tiny model."""
    import edgesdk

    edgesdk.export(make_checkpoint(folder / "model"), target, folder / "bundle", context=64, **options)
    return folder / "bundle"


def sealed(manifest: Any) -> bytes:
    """The text of a manifest with its own digest, as far as it can have one."""
    try:
        text = json.dumps({**manifest, "digest": ""}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return text.replace('"digest": ""', f'"digest": "{digest}"').encode()
    except (TypeError, ValueError, RecursionError):
        return json.dumps(manifest).encode("utf-8", "replace")


def resealed(manifest: dict[str, Any], changed: Files) -> bytes:
    """The manifest of a bundle some of whose files were changed."""
    files = []
    for entry in manifest["files"]:
        content = changed.get(entry["path"])
        if content is not None:
            entry = {**entry, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files.append(entry)
    return sealed({**manifest, "files": files})


def _manifest(folder: Path) -> Case:
    from edgesdk.bundle import Manifest

    manifest = json.loads((exported(folder, "linux-x86_64") / _MANIFEST).read_text())

    def make(random: Random) -> Files:
        changed = changed_tree(random, manifest)
        text = sealed(changed) if isinstance(changed, dict) and random.random() < 0.8 else written_json(random, changed)
        return {_MANIFEST: text}

    return Case(make, lambda files: Manifest.parse(files[_MANIFEST].decode("utf-8", "replace"), _MANIFEST))


def _used(target: str, *, runs: bool = True, **options: Any) -> Opener:
    """A bundle that is inspected, verified and, where there is a runtime here, asked."""

    def opener(folder: Path) -> Case:
        bundle = exported(folder, target, **options)
        paths = [path for path in bundle.rglob("*") if path.is_file()]
        samples = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in paths}
        manifest, place = json.loads(samples[_MANIFEST]), placed(bundle, samples)
        program = manifest["program"]["main"]

        def make(random: Random) -> Files:
            if random.random() < 0.5:
                listed = manifest["files"] if random.random() < 0.9 else changed_tree(random, manifest["files"])
                changed = changed_tree(random, {key: value for key, value in manifest.items() if key != "files"})
                changed = {**changed, "files": listed} if isinstance(changed, dict) else {}
                return {_MANIFEST: sealed(changed)}
            name = random.choice([name for name in samples if name != _MANIFEST])
            made = {name: (changed_words if name == program else changed_bytes)(random, samples[name])}
            return {**made, _MANIFEST: resealed(manifest, made)}

        def run(files: Files) -> None:
            place(files)
            _use(bundle, runs)

        return Case(make, run)

    return opener


def _use(bundle: Path, runs: bool) -> None:
    from edgesdk.bundle import open_bundle
    from edgesdk.chat import Chat
    from edgesdk.cli import edgesdk as commands

    with contextlib.redirect_stdout(io.StringIO()):
        for command in ("inspect", "verify"):
            commands.main([command, str(bundle)], standalone_mode=False)
        if runs:
            with open_bundle(bundle) as opened:
                Chat(opened).ask("Hi", max_tokens=2)


def _zip(folder: Path) -> Case:
    from edgesdk.bundle import is_bundle, open_bundle, pack

    file = folder / "bundle.zip"
    pack(exported(folder, "linux-x86_64"), file)
    data = file.read_bytes()

    def run(files: Files) -> None:
        file.write_bytes(files[file.name])
        is_bundle(file)
        with open_bundle(file):
            pass

    return Case(lambda random: {file.name: changed_zip(random, data)}, run)


def _tflite(folder: Path) -> Case:
    from edgesdk.linting import lint_program

    bundle = exported(folder, "litert-arm64", recipe="w8")
    file = bundle / json.loads((bundle / _MANIFEST).read_text())["program"]["main"]
    data = file.read_bytes()

    def run(files: Files) -> None:
        file.write_bytes(files[file.name])
        lint_program(file, "cortex-m4f")

    return Case(lambda random: {file.name: changed_words(random, data)}, run)


TARGETS: dict[str, Opener] = {
    "manifest": _manifest,
    "bundle-onnx": _used("linux-x86_64"),
    "bundle-pte": _used("android-arm64"),
    "bundle-firmware": _used("cortex-m4f"),
    "bundle-zip": _zip,
    "tflite": _tflite,
}
