"""Paths as clients write them: with a slash too many, or without ``/v1``, they mean the same route."""

from __future__ import annotations

from collections.abc import Collection

_VERSION = "/v1"


def route_path(path: str, known: Collection[str]) -> str:
    """The path of the route that is meant; the path without spare slashes where there is no such route.

    Args:
        path: as it was asked for.
        known: the paths of routes; one that ends with ``/`` stands for all below it.
    """
    plain = "/" + "/".join(part for part in path.split("/") if part)
    while plain.startswith(_VERSION * 2 + "/"):
        plain = plain.removeprefix(_VERSION)
    candidates = (plain, _VERSION + plain, plain.removeprefix(_VERSION))
    return next((each for each in candidates if _is_known(each, known)), plain)


def _is_known(path: str, known: Collection[str]) -> bool:
    return path in known or any(each.endswith("/") and path.startswith(each) and path != each for each in known)
