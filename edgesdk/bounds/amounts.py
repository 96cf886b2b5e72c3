"""The limits of what is read from files that nobody vouches for, in one place.

Each lies well above what honest files need (the largest that were seen stand beside it), and low enough for a small
machine. What grows with a file is bounded by the file itself instead: a count in a header never exceeds what fits.
"""

from __future__ import annotations

import shutil
from pathlib import Path

#: Files in one archive (an Android app has about 10 thousand).
ENTRIES = 100_000
#: Bytes of a zip's directory.
DIRECTORY = 32 << 20
#: How many times as large a file may become in an archive, beyond :data:`SLACK` (weights: below 2, texts: below 20).
GROWTH = 100
SLACK = 16 << 20
#: Bytes of a text that is read whole: manifests, configurations, records (a manifest: below 1 MB).
TEXT = 16 << 20
#: Bytes of a tokenizer's text (Gemma 3: 33 MB).
TOKENIZER = 64 << 20
#: Bytes of the header of a safetensors file (128 experts in 48 layers: 3 MB).
TENSOR_HEADER = 32 << 20
#: Bytes of the metadata of a GGUF file (Gemma 3: 10 MB).
METADATA = 128 << 20
#: Values of all lists in the metadata of a GGUF file (Gemma 3: 1.5 million).
METADATA_VALUES = 8_000_000
#: Keys in the metadata of a GGUF file (below 100).
METADATA_KEYS = 10_000
#: Tensors in one file (128 experts in 48 layers: 19 thousand).
TENSORS = 200_000
#: Layers of a model (the largest published: 126).
LAYERS = 1000
#: How many times as long a text may become before its tokens are looked for (U+2581 for a space: 3 bytes).
TEXT_GROWTH = 64
#: Memory for what unpacks .xz (``xz -9``: 65 MB).
UNPACKER = 256 << 20


def largest(packed: int) -> int:
    """Most bytes that so many packed ones may become."""
    return packed * GROWTH + SLACK


def room(folder: Path) -> int:
    """Free bytes where ``folder`` lies."""
    return shutil.disk_usage(folder).free
