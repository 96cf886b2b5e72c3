"""What a user may choose of an Android project, and what of it is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ...bundle import Manifest
from ...lines import check_line
from ...stores import google_play
from ..base import PackageError, slug

Way = Literal["fast-follow", "on-demand", "install-time", "assets"]
_ID = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_VERSION = re.compile(r"\d+(\.\d+){0,3}")
_BASE, _PACK = "a base or feature module of Google Play", "an asset pack or AI pack of Google Play"


@dataclass(frozen=True)
class Options:
    """Options of the Android project.

    Attributes:
        application_id: of the apps, as com.example.chat; "" makes one of the model's name.
        name: under the app's icon; "" is the model's name.
        version: of the apps and of the library, up to four numbers.
        delivery: how Google Play brings the model: fast-follow, on-demand, install-time (which copies it once more on
            the phone), or assets (in the base module).
        pack: asset-pack, or ai-pack, which Google Play can target by memory and phone.
        kotlinc: Kotlin's compiler, for the library's classes in the AAR; without it the AAR brings the model alone.
        classpath: jars that the library is compiled against, separated as in PATH: android.jar, ExecuTorch's classes,
            kotlinx-coroutines-core.
        key: file or 64 hexadecimal digits of a public key; the bundle must be signed with it (edgesdk sign), and the
            app takes no model that is not, nor one that is older.
    """

    application_id: str = ""
    name: str = ""
    version: str = "1.0.0"
    delivery: Way = "fast-follow"
    pack: Literal["asset-pack", "ai-pack"] = "asset-pack"
    kotlinc: str = ""
    classpath: str = ""
    key: str = ""


@dataclass(frozen=True)
class Delivery:
    """How the model reaches the phone.

    Attributes:
        plugin: of Gradle, for the pack's module; "" where the model is in the app's own assets.
        block: what configures that plugin.
        type: fast-follow, on-demand or install-time.
        library: coordinates of Google Play's library; "" where none is needed.
        activity: coordinates of what that library's questions to the user are shown with; "" where it needs none.
        variant: which sources find the pack.
    """

    plugin: str
    block: str
    type: str
    library: str
    activity: str
    variant: str


ASSET_DELIVERY = "com.google.android.play:asset-delivery:2.3.0"
AI_DELIVERY = "com.google.android.play:ai-delivery:0.1.1-alpha01"
ACTIVITY = "androidx.activity:activity:1.10.1"


def delivery(options: Options) -> Delivery:
    """What the options ask for, in Gradle's words."""
    if options.delivery == "assets":
        return Delivery("", "", "", "", "", "assets")
    plugin, block, library, activity = {
        "asset-pack": ("com.android.asset-pack", "assetPack", ASSET_DELIVERY, ""),
        "ai-pack": ("com.android.ai-pack", "aiPack", AI_DELIVERY, ACTIVITY),
    }[options.pack]
    if options.delivery == "install-time":  # such packs have no path: their files are assets of the app
        return Delivery(plugin, block, options.delivery, "", "", "assets")
    return Delivery(plugin, block, options.delivery, library, activity, options.pack)


def application_id(manifest: Manifest, options: Options) -> str:
    """The apps' identity.

    Raises:
        PackageError: it is none.
    """
    chosen = options.application_id or f"com.example.{slug(manifest.model.name).replace('-', '_')}"
    if not _ID.fullmatch(chosen):
        raise PackageError(
            f"application_id {chosen!r} is none of Android's",
            hint="lower-case words with dots: com.example.chat",
        )
    return chosen


def check_options(options: Options) -> None:
    """Refuse what cannot be right.

    Raises:
        PackageError: which, and the way out.
    """
    if not _VERSION.fullmatch(options.version):
        raise PackageError(f"version {options.version!r} is not up to four numbers", hint="version=1.0.0")
    if any(int(part) > 99 for part in options.version.split(".")[1:]) or int(options.version.split(".")[0]) > 2000:
        raise PackageError(
            f"version {options.version!r}: Google Play's version code has room for 2000.99.99.99", hint="version=1.0.0"
        )
    check_line(options.name, "name", PackageError)
    if bool(options.kotlinc) != bool(options.classpath):
        raise PackageError(
            "kotlinc and classpath go together", hint="classpath: android.jar, ExecuTorch's, kotlinx-coroutines-core"
        )


def check_size(manifest: Manifest, options: Options) -> None:
    """Refuse a bundle that Google Play would not deliver in this way.

    Raises:
        PackageError: the limit, and the way out.
    """
    way = _BASE if options.delivery == "assets" else _PACK
    megabytes, limit = _megabytes(manifest), _limit(way)
    if megabytes <= limit:
        return
    out = "delivery=fast-follow puts it into a pack" if way == _BASE else None
    if out is None or megabytes > _limit(_PACK):
        out = (
            "export it smaller (a recipe with fewer bits, edgesdk compress --size), split it over several packs, "
            "or have the app download the bundle from your own server and verify it with Bundle.open"
        )
    raise PackageError(f"the bundle has {megabytes:.0f} MB, and {way} takes {limit} MB (compressed)", hint=out)


def why_no_aar(manifest: Manifest) -> str | None:
    """Why an AAR with the model is of no use, and what is; None where Google Play would deliver an app that has it."""
    megabytes, limit = _megabytes(manifest), _limit(_BASE)
    if megabytes <= limit:
        return None
    return (
        f"No AAR: the {megabytes:.0f} MB of the model would be assets of the app, and {_BASE} takes {limit} MB; "
        "copy edgemodel/ and modelpack/ (an asset pack or AI pack) into a project that you have already."
    )


def limits() -> dict[str, int]:
    """What Google Play takes, in MB: of a base module, of a pack, and of all packs."""
    total = max(each.max_mb for each in google_play().total)
    return {"base": _limit(_BASE), "pack": _limit(_PACK), "total": total}


def _megabytes(manifest: Manifest) -> float:
    return sum(entry.size for entry in manifest.files) / 1e6


def _limit(way: str) -> int:
    return {each.way: each.max_mb for each in google_play().delivery}[way]
