"""Signed bundles: who made a bundle, and that it is not an older one. README.md says how keys are kept and changed."""

from __future__ import annotations

from ..errors import BundleError


class SignatureError(BundleError):
    """A bundle is not signed as it has to be, or a key cannot be used."""
