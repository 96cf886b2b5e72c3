"""One bundle behind OpenAI's chat API: a small server for a board and for the desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import MissingExtraError
from .settings import ServeError, Settings, open_settings

if TYPE_CHECKING:
    from ..bundle import Bundle


def serve(bundle: Bundle, settings: Settings, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve a bundle until SIGTERM or SIGINT; then the running answer may end.

    Args:
        bundle: opened, which verifies it.
        settings: how.
        ready: told the server's address once it answers.

    Raises:
        EdgeError: it cannot be served here, or a library is missing.
    """
    try:
        from .server import run
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "fastapi", "serve") from None
    run(bundle, settings, ready)


__all__ = ["ServeError", "Settings", "open_settings", "serve"]
