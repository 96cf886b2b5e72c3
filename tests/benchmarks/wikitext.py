"""Perplexity of recipes with the weights alone rounded (activations in float), in the reference model.

    python tests/benchmarks/wikitext.py TEXT [RECIPE ...]

TEXT is WikiText-2's test split in its tokenised form; the first 6 windows of 512 tokens are scored.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import edgesdk
from edgesdk.compress.base import Setting
from edgesdk.compress.quality import perplexity_of, reference_loss
from edgesdk.compress.recipe import open_recipe
from edgesdk.model.reference import ReferenceModel
from edgesdk.passages.cutting import file_windows
from edgesdk.progress import SILENT


def main() -> None:
    text = Path(sys.argv[1])
    model = edgesdk.open_model("smollm2-135m")
    for name in sys.argv[2:] or ["none", "w8", "w4g32", "w4g32-e4", "w4g64"]:
        with tempfile.TemporaryDirectory() as scratch:
            started = time.process_time()
            compressed, reports = open_recipe(name)(model, Setting(Path(scratch), SILENT))
            cpu = time.process_time() - started
            error = reports[0].relative_error if reports else None
            windows = file_windows(model.tokenizer, text, 6, context=model.spec.context)
            found = perplexity_of(reference_loss(ReferenceModel(compressed, resident=False), windows, SILENT), windows)
        print(
            f"{name:<10} perplexity {found:6.2f}   relative squared error {error or 0:.5f}   {cpu:5.1f} s CPU",
            flush=True,
        )


if __name__ == "__main__":
    main()
