"""What an app's AndroidManifest.xml says, as far as a store judges it."""

from __future__ import annotations

from dataclasses import dataclass

from .compiled import DamagedError, Element, Value, elements
from .resources import resolved

#: Ids of attributes among Android's public resources (frameworks/base/core/res/res/values/public*.xml of AOSP).
_IDS = {
    "icon": 0x01010002,
    "name": 0x01010003,
    "debuggable": 0x0101000F,
    "minSdkVersion": 0x0101020C,
    "targetSdkVersion": 0x01010270,
    "testOnly": 0x01010272,
    "required": 0x0101028E,
}
_TRUE = ("true", "TRUE", "True", "1")


@dataclass(frozen=True)
class AppManifest:
    """A manifest.

    Attributes:
        target_sdk: API level that the app is made for, or the code name of a version that is not out yet; None where it
            stands in a resource that cannot be read.
        implied: whether that is the lowest SDK that it runs on, as it says no other.
        debuggable: whether a debugger may attach; None as above.
        test_only: whether it is for tests alone; None as above.
        icon: whether it has one.
        required: features of devices that it does not run without.
        sdks: how many elements say which SDK it is for; the last counts.
        split: whether it is of a part of an app (a split, a pack), which says little of this.
    """

    target_sdk: int | str | None
    implied: bool
    debuggable: bool | None
    test_only: bool | None
    icon: bool
    required: tuple[str, ...]
    sdks: int
    split: bool = False


def read_manifest(data: bytes, resources: bytes | None) -> AppManifest:
    """Read a compiled manifest.

    Args:
        data: of AndroidManifest.xml.
        resources: of ``resources.arsc`` or ``resources.pb`` beside it, which references lead to.

    Raises:
        DamagedError: it is none.
    """
    required: list[str] = []
    sdk = app = Element((), {}, {})
    sdks, root = 0, None
    for element in elements(data):
        root = element if element.path == ("manifest",) else root
        if element.path == ("manifest", "uses-sdk"):
            sdk, sdks = element, sdks + 1
        elif element.path == ("manifest", "application"):
            app = element
        elif element.path == ("manifest", "uses-feature"):
            name = _said(element, "name", None, None)  # Android takes no reference here
            if isinstance(name, str) and _flag(element, "required", None, default=True) is not False:
                required.append(name)
    if root is None:
        raise DamagedError("no manifest in it")
    implied = not _has(sdk, "targetSdkVersion")
    level = _said(sdk, "minSdkVersion" if implied else "targetSdkVersion", resources, 1)
    return AppManifest(
        _level(level),
        implied,
        _flag(app, "debuggable", resources),
        _flag(app, "testOnly", resources),
        _has(app, "icon"),
        tuple(required),
        sdks,
        "split" in root.named,
    )


def _has(element: Element, name: str) -> bool:
    return _IDS[name] in element.attributes or name in element.named


def _said(element: Element, name: str, resources: bytes | None, otherwise: Value) -> Value:
    """The value of an attribute; None where it cannot be found out."""
    if not _has(element, name):
        return otherwise
    value = element.attributes.get(_IDS[name], element.named.get(name))
    return resolved(value, resources)


def _flag(element: Element, name: str, resources: bytes | None, *, default: bool = False) -> bool | None:
    value = _said(element, name, resources, default)
    return value in _TRUE if isinstance(value, str) else None if value is None else bool(value)


def _level(value: Value) -> int | str | None:
    """An API level; a number in a text is one too."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
    return value if isinstance(value, int) else None
