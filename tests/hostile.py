"""Strings that somebody else chose, and bundles that say them with hashes that are right."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from edgesdk.bundle import FILE
from edgesdk.bundle.manifest import Manifest

#: One printable line each, and something else in one format or another.
LINES = (
    'x"); system("id"); // ${java.lang.Runtime.getRuntime()} \\(exit(1)) \' </string>"""',
    "%n %h %i 100% of %s and %d\\",
    "@string/app_name",
    "?attr/theme 'it''s' \\u0041 \\x41 \\n",
    "a: b # c, [d] {e: f} & *g !h | > % @i `touch PWNED` $(touch PWNED)",
    "{{ 7 * 7 }} {% raw %} <script>alert(1)</script> [x](javascript:y) ![z](file:///etc/passwd) | a | b |",
    "=1+1 -- ; ]]> <!-- --> é 日本語 🙂",
)

#: No lines, or not printable.
NOT_LINES = (
    "x\n[Service]\nExecStartPre=+/bin/sh -c 'touch /PWNED'",
    "x\r\nDepends: evil",
    "\x1b]0;title\x07\x1b[2J\x1b[31mSAFE\x1b[0m",
    "a\0b",
    "moc.live\u202e//:sptth",
    "a\u2028b",
    "\x9b31m",
    "n" * 201,
)


def renamed(bundle: Path, folder: Path, **changes: object) -> Path:
    """A copy of a bundle whose model says other things of itself; every hash in it is right."""
    shutil.copytree(bundle, folder)
    manifest = Manifest.parse((folder / FILE).read_text(encoding="utf-8"), FILE)
    sealed = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, **changes))  # type: ignore[arg-type]
    (folder / FILE).write_text(sealed.text(), encoding="utf-8")
    return folder


def resealed(bundle: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of a bundle in whose manifest a text stands for another, the digest made anew as an attacker would."""
    import hashlib
    import json

    shutil.copytree(bundle, folder)
    data = json.loads((folder / FILE).read_text(encoding="utf-8"))

    def swap(value: object) -> object:
        if isinstance(value, dict):
            return {key: swap(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [swap(inner) for inner in value]
        return new if value == old else value

    changed = swap(data)
    assert isinstance(changed, dict) and changed != data
    changed["digest"] = ""
    text = json.dumps(changed, indent=1, ensure_ascii=False) + "\n"
    changed["digest"] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    text = json.dumps(changed, indent=1, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    return folder
