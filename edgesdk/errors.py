"""The errors a user sees: what failed, what was found, and the way out."""

from __future__ import annotations


class EdgeError(Exception):
    """A failure with a message for the user and, where there is one, a way out.

    The command line prints ``Error: message`` and ``Hint: hint`` and exits with status 1;
    a traceback at the terminal is a defect.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ModelError(EdgeError):
    """The checkpoint, its configuration or its tokenizer cannot be used."""


class RecipeError(EdgeError):
    """A recipe or the options of a pass are wrong."""


class TargetError(EdgeError):
    """A target is unknown, badly described, or cannot hold what was asked."""


class UnbuiltError(TargetError):
    """A converter does not build what a family has: no program can be planned."""


class BundleError(EdgeError):
    """A bundle is damaged, incomplete, or of another version."""


class QualityError(EdgeError):
    """A quality gate was not met."""


class MissingExtraError(EdgeError):
    """A library that comes with an optional extra is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"this needs the Python package '{module}', which is not installed",
            hint=f"pip install 'edgesdk[{extra}]'",
        )
        self.module = module
        self.extra = extra
