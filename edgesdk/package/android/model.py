"""The model as an app carries it: the bundle, what its chat template comes to, and prompts to measure with."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...bundle import FILE as MANIFEST
from ...bundle import SIGNATURE, Bundle
from ...chat import bundle_tokenizer
from ...model.tokenizer import Tokenizer
from ..base import PackageError
from ..prompts import FILE as CHAT
from ..prompts import chat_format

NAME = "edgemodel"  # the folder in assets, on the phone, and in the sources
LENGTHS = (32, 128, 512)  # tokens of the prompts to measure with, as far as the context has room
NEW_TOKENS = 64
_SENTENCE = "The river runs past the mill, and in spring its water turns the old wheel by day and by night. "


@dataclass(frozen=True)
class Carried:
    """A model tree and what the app pins of it."""

    folder: Path
    digest: str
    chat_sha256: str


def write_model(bundle: Bundle, folder: Path) -> Carried:
    """Write the tree: ``chat.json``, and the bundle in ``bundle``, with its signature where it has one.

    Raises:
        PackageError: the bundle's chat template cannot be written as fixed strings.
    """
    chat = chat_format(bundle).text().encode()
    folder.mkdir(parents=True)
    (folder / CHAT).write_bytes(chat)
    beside = [MANIFEST, *([SIGNATURE] if (bundle.folder / SIGNATURE).is_file() else [])]
    for name in (*beside, *(entry.path for entry in bundle.manifest.files)):
        target = folder / "bundle" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.folder / name, target)
    return Carried(folder, bundle.manifest.digest, hashlib.sha256(chat).hexdigest())


def prompts_text(bundle: Bundle) -> str:
    """Plain prompts of known lengths, as JSON: by number of tokens.

    Raises:
        PackageError: the context has no room for any.
    """
    tokenizer = bundle_tokenizer(bundle)
    room = bundle.manifest.context - NEW_TOKENS - 2 - len(tokenizer.special.prefix)
    found = {str(length): _of_length(tokenizer, length) for length in LENGTHS if length <= room}
    if not found:
        raise PackageError(
            f"a context of {bundle.manifest.context} tokens has no room to measure in",
            hint=f"export with --context {LENGTHS[0] + NEW_TOKENS + 2} or more",
        )
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _of_length(tokenizer: Tokenizer, length: int) -> str:
    """A text of at most so many tokens, and as near to it as whole characters come."""
    text = _SENTENCE * (1 + length)
    low, high = 1, len(text)
    while low < high:  # the longest beginning that has no more tokens
        middle = (low + high + 1) // 2
        if len(tokenizer.encode(text[:middle])) <= length:
            low = middle
        else:
            high = middle - 1
    return text[:low]
