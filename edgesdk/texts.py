"""The texts that go with a model wherever it goes: tokenizer, chat template, licences."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model.opening import AnyModel


def write_texts(model: AnyModel, folder: Path) -> None:
    """Tokenizer, chat template and licences."""
    tokenizer = model.tokenizer
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer.definition, encoding="utf-8", newline="\n")
        config = tokenizer.config_text()
        (folder / "tokenizer_config.json").write_text(config, encoding="utf-8", newline="\n")
        if tokenizer.chat_template is not None:
            (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8", newline="\n")
    for licence in model.origin.licence_files:
        (folder / "licences").mkdir(exist_ok=True)
        shutil.copyfile(licence, folder / "licences" / licence.name)
