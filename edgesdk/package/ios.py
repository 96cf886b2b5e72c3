"""iOS: a Swift package over ExecuTorch's ``TextRunner``, a sample app for XcodeGen, and a benchmark."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from .. import __version__
from ..bundle import FILE as MANIFEST
from ..bundle import SIGNATURE, Bundle, Manifest
from ..lines import check_line
from ..progress import Progress, track
from ..signing.pins import check_with
from ..stores import IOS, app_store
from ..targets import targets_dir
from . import prompts
from .base import PackageError, Written
from .icon import icon_png
from .runtime import pinned_version
from .templates import fill

Way = Literal["resource", "on-demand", "background"]
_BUNDLE_ID = re.compile(r"[A-Za-z][A-Za-z0-9-]*(\.[A-Za-z0-9-]+)+")
_VERSION = re.compile(r"\d+(\.\d+){0,2}")
#: The target's delivery behind each way, in the order in which ``auto`` tries them.
_DELIVERY: dict[Way, str] = {
    "resource": "an app of the App Store",
    "on-demand": "an on-demand resource of the App Store from iOS 18",
    "background": "a background asset pack that Apple hosts",
}
#: ExecuTorch's products behind a program's delegate, beside those that every program needs.
_BACKENDS = {"xnnpack": "backend_xnnpack", "coreml": "backend_coreml"}
_PRODUCTS = ("executorch", "kernels_llm", "kernels_optimized", "kernels_quantized")
_ICONS = "App/Assets.xcassets/AppIcon.appiconset"
_OWN_APP = {
    "resource": " and the folder `Model` as a folder reference",
    "on-demand": ", the folder `Model` as a folder reference with the on-demand tag `Model`, and `App/Delivery`",
    "background": ", `App/Delivery`, and the extension in `Downloader`",
}


@dataclass(frozen=True)
class IosOptions:
    """What may be chosen about an iOS deliverable.

    Attributes:
        name: of the app; the model's name where it is empty.
        bundle_id: the app's identifier.
        version: of the app: up to three numbers.
        delivery: resource (comes with the app), on-demand (the App Store hosts it), background (an asset pack, iOS 26),
            or auto: the first of these that the model is small enough for.
        key: file or 64 hexadecimal digits of a public key; the bundle must be signed with it (edgesdk sign), and the
            app takes no model that is not, nor one that is older.
    """

    name: str = ""
    bundle_id: str = "com.example.edgemodel"
    version: str = "1.0.0"
    delivery: Literal["auto", "resource", "on-demand", "background"] = "auto"
    key: str = ""


class Ios:
    """See :class:`~.base.Deliverable`."""

    description = "Swift package, sample app and benchmark over ExecuTorch, for Xcode"
    options = IosOptions

    def check(self, manifest: Manifest, options: IosOptions) -> None:
        if manifest.target.os != "ios" or manifest.program.converter != "executorch":
            raise PackageError(
                f"this bundle is for {manifest.target.name}, and the Swift package runs ExecuTorch on iOS",
                hint=f"edgesdk export MODEL --target {IOS}",
            )
        if manifest.program.facts.get("delegate") not in _BACKENDS:
            raise PackageError(
                f"ExecuTorch has no Swift package for the delegate {manifest.program.facts.get('delegate')!r}",
                hint=f"export for one of {', '.join(_BACKENDS)}",
            )
        if not _BUNDLE_ID.fullmatch(options.bundle_id):
            raise PackageError(
                f"bundle_id '{options.bundle_id}': letters, digits and hyphens, in parts with dots between",
                hint="--set bundle_id=com.example.app",
            )
        if not _VERSION.fullmatch(options.version):
            raise PackageError(f"version '{options.version}': up to three numbers", hint="--set version=1.0.0")
        if "$" in _name(manifest, options):  # XcodeGen puts variables of the environment there, and Xcode its own
            raise PackageError(f"name {_name(manifest, options)!r}: no dollar signs", hint="--set name='My app'")
        _way(manifest, options)

    def write(self, bundle: Bundle, options: IosOptions, folder: Path, progress: Progress) -> Written:
        manifest = bundle.manifest
        way, version = _way(manifest, options), pinned_version(manifest)
        signed = check_with(bundle, options.key) if options.key else None
        name, rules = _name(manifest, options), app_store()
        products = [_PRODUCTS[0], _BACKENDS[manifest.program.facts["delegate"]], *_PRODUCTS[1:]]
        values = {
            "name": name,
            "bundle_id": options.bundle_id,
            "version": options.version,
            "runtime_version": version,
            "runtime_versions": manifest.program.runtime_versions,
            "edgesdk_version": __version__,
            "digest": manifest.digest[:16],
            "model": manifest.model.name,
            "context": manifest.context,
            "size_mb": round(_size(manifest) / 1e6),
            "delivery_text": _DELIVERY[way],
            "xcode": max(rule.xcode for rule in rules.sdk),
            "products": products,
            "privacy": rules.reasons(products),
            "calls": [call for call in rules.call if call.product in products],
            "own_app_note": Markup(_OWN_APP[way]),
            "key": signed.key if signed else None,
            "oldest": signed.version if signed else None,
        }
        source = targets_dir() / IOS / "app"
        fill(source / "project", folder, values)
        fill(source / "delivery" / way, folder, values)
        (folder / _ICONS / "icon.png").write_bytes(icon_png(rules.icon.points))
        model = folder / ("AssetPack/Model" if way == "background" else "Model")
        beside = [MANIFEST, *([SIGNATURE] if (bundle.folder / SIGNATURE).is_file() else [])]
        for entry in track(progress, "Copying the model", [*beside, *(entry.path for entry in manifest.files)]):
            (model / entry).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.folder / entry, model / entry)
        text = prompts.chat_format(bundle).text()
        (model / prompts.FILE).write_text(text, encoding="utf-8", newline="\n")
        facts = {"name": name, "delivery": f"{way}: {_DELIVERY[way]}", "ExecuTorch": f"branch swiftpm-{version}"}
        return Written(facts, (), ("xcodegen generate && open App.xcodeproj",))


def _name(manifest: Manifest, options: IosOptions) -> str:
    """What stands under the app's icon."""
    check_line(options.name, "name", PackageError)
    return options.name or manifest.model.name.removesuffix(".gguf")


def _way(manifest: Manifest, options: IosOptions) -> Way:
    """How the model reaches users.

    Raises:
        PackageError: it is too large for that.
    """
    rules, size = app_store(), _size(manifest) / 1e6
    limits = {delivery.way: delivery.max_mb for delivery in rules.delivery}
    ways = [way for way in _DELIVERY if options.delivery in ("auto", way)]
    if options.delivery == "auto" and size > rules.mobile.max_mb:
        ways.remove("resource")
    for way in ways:
        if size <= limits[_DELIVERY[way]]:
            return way
    largest = _DELIVERY[ways[-1]]
    raise PackageError(
        f"the bundle has {size:.0f} MB, and {largest} takes {limits[largest]} MB",
        hint="compress it further: edgesdk compress --size"
        if options.delivery == "auto"
        else "--set delivery=auto takes the first way that is large enough",
    )


def _size(manifest: Manifest) -> int:
    return sum(entry.size for entry in manifest.files)


DELIVERABLE = Ios()
