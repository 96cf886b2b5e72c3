"""Text to ids and back: a ``tokenizer.json``, a policy for special tokens, and a chat template."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    import tokenizers

Message = Mapping[str, str]


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens as ids: what starts a text, what ends an answer.

    ``prefix`` is put in front of plain text (a BOS where the model wants one); a chat template brings its own.
    """

    bos: int | None = None
    stop: tuple[int, ...] = ()
    pad: int | None = None
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as data; the ``tokenizers`` library loads when it is first used.

    Attributes:
        definition: the text of ``tokenizer.json``.
        special: the special-token policy.
        chat_template: Jinja source, or None.
    """

    definition: str
    special: SpecialTokens
    chat_template: str | None = None

    @cached_property
    def backend(self) -> tokenizers.Tokenizer:
        """The loaded tokenizer.

        Raises:
            ModelError: the definition cannot be read.
        """
        from tokenizers import Tokenizer as Backend

        try:
            backend = Backend.from_str(self.definition)
        except Exception as failure:  # the library raises plain Exception
            raise ModelError(f"the tokenizer definition cannot be read: {failure}") from None
        backend.no_truncation()
        backend.no_padding()
        return backend

    @property
    def size(self) -> int:
        """One more than the largest id that it can give."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, text: str, *, prefix: bool = False) -> list[int]:
        """Ids of ``text``; special tokens in it are recognised, ``prefix`` puts the policy's prefix in front."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ModelError("the text is not valid Unicode (it holds half of a surrogate pair)") from None
        ids = list(self.backend.encode(text, add_special_tokens=False).ids)
        return [*self.special.prefix, *ids] if prefix else ids

    def written_prefix(self) -> tuple[str, int]:
        """How plain text gets its prefix from a runtime that goes by the definition's post-processor alone.

        Returns: what has to be written in front of each text, and how many tokens the runtime then adds by itself.

        Raises:
            ModelError: neither gives the prefix.
        """
        prefix = self.special.prefix
        if not prefix or _added_prefix(self) == prefix:
            return "", len(prefix)
        text = "".join(self.token(index) for index in prefix)
        if any(self.encode(text + each) != self.encode(each, prefix=True) for each in ("a", " a", "A b\n")):
            raise ModelError(
                f"the tokenizer's {text} in front of plain text comes neither from its post-processor nor as text",
                hint="give tokenizer.json a post_processor (TemplateProcessing) that puts it there, and export again",
            )
        return text, 0

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def token(self, index: int | None) -> str:
        """The written form of one id ('' for None)."""
        return "" if index is None else self.backend.id_to_token(index) or ""

    def config_text(self) -> str:
        """A ``tokenizer_config.json`` for runtimes that read one beside ``tokenizer.json``."""
        special = self.special
        stop = special.stop[0] if special.stop else None
        named = {"bos_token": special.bos, "eos_token": stop, "pad_token": special.pad}
        config: dict[str, Any] = {key: self.token(index) for key, index in named.items() if index is not None}
        config |= {
            "add_bos_token": special.bos is not None and special.prefix[:1] == (special.bos,),
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, ready for the assistant's answer.

        Raises:
            ModelError: there is no chat template, or it refuses the conversation.
        """
        return self.encode(self.render(messages))

    def render(self, messages: Sequence[Mapping[str, object]], *, answering: bool = True) -> str:
        """The conversation as the chat template writes it, with the opening of the assistant's turn when it answers."""
        if self.chat_template is None:
            raise ModelError("this model has no chat template", hint="give a plain prompt")
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        stop = self.special.stop[0] if self.special.stop else None
        try:
            return environment.from_string(self.chat_template).render(
                messages=list(messages),
                add_generation_prompt=answering,
                bos_token=self.token(self.special.bos),
                eos_token=self.token(stop),
                pad_token=self.token(self.special.pad),
            )
        except Exception as failure:  # a template may raise anything that its expressions can
            raise ModelError(f"the chat template failed: {failure}") from None


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    Raises:
        ModelError: there is no ``tokenizer.json``, or a file cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder}: no tokenizer.json",
            hint="AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) with transformers writes it",
        )
    config = _optional_json(folder / "tokenizer_config.json")
    generation = _optional_json(folder / "generation_config.json")
    model = _optional_json(folder / "config.json")
    tokenizer = Tokenizer(_text(path), SpecialTokens(), _chat_template(folder, config))

    def named(key: str) -> int | None:
        token = config.get(key)
        content = token.get("content") if isinstance(token, dict) else token
        return tokenizer.backend.token_to_id(content) if isinstance(content, str) else None

    stops: list[int] = []
    for value in (named("eos_token"), generation.get("eos_token_id"), model.get("eos_token_id")):
        for index in value if isinstance(value, list) else [value]:
            if isinstance(index, int) and index not in stops:
                stops.append(index)
    bos = named("bos_token")
    if bos is None and isinstance(model.get("bos_token_id"), int):
        bos = model["bos_token_id"]
    special = SpecialTokens(bos, tuple(stops), named("pad_token"), _added_prefix(tokenizer))
    return Tokenizer(tokenizer.definition, special, tokenizer.chat_template)


def _added_prefix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the tokenizer's own post-processor puts in front of a text."""
    plain = tokenizer.backend.encode("a", add_special_tokens=False).ids
    added = tokenizer.backend.encode("a", add_special_tokens=True).ids
    for start in range(len(added) - len(plain) + 1):
        if added[start : start + len(plain)] == plain:
            return tuple(added[:start])
    return ()


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return _text(file)
    older = _optional_json(folder / "chat_template.json")  # where processors of images kept it
    template = older.get("chat_template") or config.get("chat_template")
    if isinstance(template, list):
        template = next(
            (entry.get("template") for entry in template if isinstance(entry, dict) and entry.get("name") == "default"),
            None,
        )
    return template if isinstance(template, str) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as failure:
        raise ModelError(f"{path}: not UTF-8 text (byte {failure.start})") from None


def _optional_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as failure:
        raise ModelError(f"{path}: not valid JSON ({failure})") from None
    return found if isinstance(found, dict) else {}


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
