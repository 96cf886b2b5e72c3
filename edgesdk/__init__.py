"""edgesdk: ship small language models on phones, edge boards and microcontrollers.

    import edgesdk

    edgesdk.export("smollm2-135m", "linux-x86_64", "bundle", recipe="w4g32")
    with edgesdk.open_bundle("bundle") as bundle:
        chat = edgesdk.Chat(bundle)
        print(chat.ask("What is the capital of France?"))

Importing edgesdk loads neither torch nor a runtime: each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .silence import keep_silent

__version__ = "0.1.0"
keep_silent()

if TYPE_CHECKING:
    from .bundle import Bundle, Manifest, open_bundle
    from .chat import Chat, open_session
    from .compress.recipe import Recipe, open_recipe
    from .compressing import compress_model
    from .errors import EdgeError
    from .exporting import Checks, export
    from .generation import Sampling, generate
    from .linting import lint
    from .model import Model
    from .model.opening import open_model
    from .quality import compare_quality
    from .session import Session
    from .targets import Target, open_target, target_names

_HOMES = {
    "Bundle": "bundle",
    "Chat": "chat",
    "Checks": "exporting",
    "EdgeError": "errors",
    "Manifest": "bundle",
    "Model": "model",
    "Recipe": "compress.recipe",
    "Sampling": "generation",
    "Session": "session",
    "Target": "targets",
    "compare_quality": "quality",
    "compress_model": "compressing",
    "export": "exporting",
    "generate": "generation",
    "lint": "linting",
    "open_bundle": "bundle",
    "open_model": "model.opening",
    "open_recipe": "compress.recipe",
    "open_session": "chat",
    "open_target": "targets",
    "target_names": "targets",
}

__all__ = [
    "Bundle",
    "Chat",
    "Checks",
    "EdgeError",
    "Manifest",
    "Model",
    "Recipe",
    "Sampling",
    "Session",
    "Target",
    "compare_quality",
    "compress_model",
    "export",
    "generate",
    "lint",
    "open_bundle",
    "open_model",
    "open_recipe",
    "open_session",
    "open_target",
    "target_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgesdk' has no attribute '{name}'")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
