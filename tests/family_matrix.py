"""The support matrix from the results of the parity tests.

    EDGESDK_MATRIX=build/matrix python -m pytest tests/unit/test_families.py tests/unit/test_families_executorch.py ...
    python -m tests.family_matrix build/matrix [--write]

Without ``--write`` the results are compared with ``edgesdk/model/support.json``: status 1 where a cell that is
said to be proven was not, where another reason was given, or where one is missing. Figures may differ by machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edgesdk.model.support import FILE

Key = tuple[str, str, str, str, str]  # kind, family, variant, runtime, scheme


def results(folder: Path) -> dict[Key, dict[str, Any]]:
    """Every cell that the tests wrote; the last word on one counts."""
    found: dict[Key, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime):
        for line in path.read_text(encoding="utf-8").splitlines():
            cell = json.loads(line)
            key = tuple(cell.pop(part) for part in ("kind", "family", "variant", "runtime", "scheme"))
            found[key] = cell  # type: ignore[index]
    return found


def known() -> dict[Key, dict[str, Any]]:
    """Every cell of the file."""
    return {
        (family["kind"], family["name"], variant["name"], runtime, scheme): cell
        for family in json.loads(FILE.read_text(encoding="utf-8"))["families"]
        for variant in family["variants"]
        for runtime, schemes in variant["runtimes"].items()
        for scheme, cell in schemes.items()
    }


def matrix(cells: dict[Key, dict[str, Any]]) -> dict[str, Any]:
    """The file's content; figures keep two digits, rounded up."""
    families: dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]] = {}
    for (kind, family, variant, runtime, scheme), cell in sorted(cells.items()):
        kept = {key: value for key, value in cell.items() if key != "passed"}
        for key in ("difference", "error"):
            if key in kept:
                kept[key] = float(f"{kept[key] * 1.005:.1e}")
        families.setdefault((kind, family), {}).setdefault(variant, {}).setdefault(runtime, {})[scheme] = kept
    return {
        "families": [
            {
                "kind": kind,
                "name": family,
                "variants": [{"name": variant, "runtimes": runtimes} for variant, runtimes in variants.items()],
            }
            for (kind, family), variants in families.items()
        ]
    }


def differences(found: dict[Key, dict[str, Any]], said: dict[Key, dict[str, Any]]) -> list[str]:
    """What does not agree, a sentence each."""
    lines = []
    for key in sorted(found.keys() | said.keys()):
        name = " / ".join(key)
        if key not in found:
            lines.append(f"{name}: said, but no test gave it")
        elif key not in said:
            lines.append(f"{name}: found, but not said")
        elif not found[key].get("passed", True):
            lines.append(f"{name}: failed")
        elif found[key].get("refused") != said[key].get("refused"):
            lines.append(f"{name}: {found[key].get('refused') or 'proven'}, but said: {said[key].get('refused')}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="make support.json of the results")
    options = parser.parse_args()
    found = results(options.folder)
    if options.write:
        failed = [" / ".join(key) for key, cell in found.items() if not cell.get("passed", True)]
        if failed:
            print("failed, so nothing is written:", *failed, sep="\n  ")
            return 1
        FILE.write_text(json.dumps(matrix(found), indent=1) + "\n", encoding="utf-8")
        return 0
    wrong = differences(found, known())
    proven = sum("refused" not in cell for cell in found.values())
    print(f"{len(found)} cells: {proven} proven, {len(found) - proven} refused by name", *wrong, sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
