"""The tokenizer of a Hugging Face folder: which of its files says what, as ``transformers`` 5.23 reads them.

Sources: ``tokenization_utils_base.py`` (``_from_pretrained``) and ``tokenization_utils_tokenizers.py``. Tokens that
only ``tokenizer_config.json``, ``special_tokens_map.json`` or ``added_tokens.json`` know are added to the definition,
so that every reader of the written ``tokenizer.json`` has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from ..bounds.amounts import TOKENIZER
from ..bounds.regular import read_limited, refuse_irregular, regular_file
from ..documents import parse_json
from ..errors import ModelError
from .tokenizer_bounds import no_panic, outline
from .tokenizer_classes import class_of

if TYPE_CHECKING:
    import tokenizers

#: Named tokens that every tokenizer may have; a model may name more (``image_token``).
STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FILE, _TRANSFORMERS = "tokenizer.json", Version("5.23.0")
_RULES = ("single_word", "lstrip", "rstrip", "normalized", "special")
_RESAVE = "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) with transformers writes files that agree"
#: Texts that tell the usual ways of splitting apart.
_PROBES = (
    "Hello world, it's 12345 o'clock: don't you'LL",
    " a  b   c\n\n d\t\te \r\n\r\nf ",
    "stra\u00dfe cafe\u0301 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \U0001f600\u200d",
    "def f(x): return x[1:]-3.14*(2+2)!= 1_000",
    "CamelCase HTTPServer \u03b1\u03b2\u03b3 \u0661\u0662\u0663",
)


@dataclass(frozen=True)
class FolderTokenizer:
    """What a folder says of its tokenizer.

    Attributes:
        definition: the text of ``tokenizer.json``, with the tokens that other files add.
        names: named special tokens (``bos_token`` ...), as a template sees them.
        template: Jinja source, or None.
        bos: id of what a text starts with, or None.
        pad: id of the padding token, or None.
        stops: ids that end an answer, each with the files and keys that say so.
        notes: where files contradict each other, in words.
    """

    definition: str
    names: dict[str, str]
    template: str | None
    bos: int | None
    pad: int | None
    stops: dict[int, str]
    notes: tuple[str, ...]


def read_folder(folder: Path) -> FolderTokenizer:
    """Read the tokenizer's files.

    Raises:
        ModelError: there is no ``tokenizer.json``, a file cannot be read, or two contradict each other.
    """
    with no_panic(f"{folder}"):
        return _read_folder(folder)


def _read_folder(folder: Path) -> FolderTokenizer:
    config = optional_json(folder / "tokenizer_config.json")
    path = regular_file(folder, _definition_file(config), ModelError)
    if path is None:
        raise ModelError(
            f"{folder}: no {_definition_file(config)}",
            hint="AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) with transformers writes it",
        )
    generation = optional_json(folder / "generation_config.json")
    model = optional_json(folder / "config.json")
    text = read_text(path)
    notes: list[str] = []
    text, defaults = _with_class(text, config, model, notes)
    backend = load_backend(text)
    additions = _additions(folder, config)
    vocabulary = backend.get_vocab(with_added_tokens=True)
    filled = outline(text).get("padding")
    padding = {"pad_token": str(filled.get("pad_token"))} if isinstance(filled, dict) else {}
    usual = {name: token for name, token in (defaults | padding).items() if token in vocabulary}
    named = dict.fromkeys(STANDARD) | usual | dict(additions.named)  # new tokens get ids in this order
    names = {name: content for name, value in named.items() if (content := _content(value)) is not None}
    text, backend = _with_tokens(folder, text, backend, replace(additions, named=named), names)

    def index(name: str) -> int | None:
        return backend.token_to_id(names[name]) if name in names else None

    stops: dict[int, str] = {}
    for source, value in (
        (additions.eos_source, index("eos_token")),
        ("generation_config.json: eos_token_id", generation.get("eos_token_id")),
        ("config.json: eos_token_id", model.get("eos_token_id")),
    ):
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, int) and not isinstance(entry, bool):
                stops[entry] = f"{stops[entry]}, {source}" if entry in stops else source
    bos = index("bos_token")
    if bos is None and isinstance(model.get("bos_token_id"), int):
        bos = model["bos_token_id"]
    if (note := _unwanted_prefix(config, backend, names)) is not None:
        notes.append(note)
    return FolderTokenizer(text, names, _template(folder, config, model), bos, index("pad_token"), stops, tuple(notes))


def written_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Named special tokens of a ``tokenizer_config.json``."""
    more = config.get("extra_special_tokens")
    named = {name: value for name, value in config.items() if _is_name(name)} | (more if isinstance(more, dict) else {})
    return {name: content for name, value in named.items() if (content := _content(value)) is not None}


def load_backend(definition: str) -> tokenizers.Tokenizer:
    """The ``tokenizers`` library's tokenizer, which neither cuts texts nor fills them up.

    Raises:
        ModelError: the definition cannot be read, or is one that no honest model has.
    """
    from tokenizers import Tokenizer

    outline(definition)
    try:
        with no_panic("the tokenizer definition cannot be read"):
            backend = Tokenizer.from_str(definition)
    except ModelError:
        raise
    except Exception as failure:  # the library raises plain Exception
        raise ModelError(f"the tokenizer definition cannot be read: {failure}") from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        ModelError: it is not UTF-8, no regular file of its folder, or too large.
        FileNotFoundError: there is none.
    """
    found = regular_file(path.parent, path.name, ModelError)
    if found is None:
        raise FileNotFoundError(path)
    try:
        return read_limited(found, TOKENIZER, ModelError).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as failure:
        raise ModelError(f"{path}: not UTF-8 text (byte {failure.start})") from None


def optional_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file.

    Raises:
        ModelError: it is no JSON.
    """
    data = parse_json(read_text(path), str(path), ModelError) if path.exists() else {}
    return data if isinstance(data, dict) else {}


def _definition_file(config: Mapping[str, Any]) -> str:
    """The definition's name: some folders have one for each version of ``transformers`` (``tokenizer.4.0.0.json``)."""
    listed = config.get("fast_tokenizer_files")
    versions = []
    for name in listed if isinstance(listed, list) else []:
        number = re.fullmatch(r"tokenizer\.([\w.]+)\.json", str(name))
        try:
            versions += [(Version(number[1]), str(name))] if number else []
        except InvalidVersion:
            continue
    return max((entry for entry in versions if entry[0] <= _TRANSFORMERS), default=(_TRANSFORMERS, _FILE))[1]


def _content(value: object) -> str | None:
    """The text of a token that is written as a text or as an object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _with_class(
    text: str, config: Mapping[str, Any], model: Mapping[str, Any], notes: list[str]
) -> tuple[str, dict[str, str]]:
    """The definition as the folder's class builds it, where that gives other ids, and the class's named tokens."""
    kind, named = model.get("model_type"), config.get("tokenizer_class") or model.get("tokenizer_class")
    chosen = class_of(
        kind if isinstance(kind, str) else None,
        named if isinstance(named, str) else None,
        byte_level='"ByteLevel"' in text,
    )
    if chosen is None:
        return text, {}
    try:
        definition = json.loads(text)
        if definition["model"]["type"] != "BPE":
            return text, dict(chosen.names)
        rebuilt = json.dumps(chosen.rebuilt(definition, config), ensure_ascii=False)
    except (ValueError, RecursionError, KeyError, TypeError):
        return text, {}  # the library says what is wrong with it
    before, after = load_backend(text), load_backend(rebuilt)
    added = [token.content for token in before.get_added_tokens_decoder().values()][:2]
    probes = [*_PROBES, *(f"x{token}\nHi {token} you" for token in added)]
    if all(before.encode(probe).ids == after.encode(probe).ids for probe in probes):
        return text, dict(chosen.names)
    notes.append(
        f"tokenizer.json by itself gives other ids than transformers 5, whose {named or f'class for {kind}'} builds "
        "its own steps around the vocabulary; edgesdk gives those of transformers (to have the file's own, set "
        "tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json, and check with the model's publisher)"
    )
    return rebuilt, dict(chosen.names)


@dataclass(frozen=True)
class _Additions:
    """What files beside ``tokenizer.json`` say of special tokens.

    Attributes:
        source: the name of the file that numbers tokens.
        eos_source: what names the token that ends a text.
        entries: tokens by id.
        named: named special tokens, as texts or as objects with their rules.
        extra: further special tokens, likewise.
    """

    source: str
    eos_source: str
    entries: Mapping[int, tokenizers.AddedToken]
    named: Mapping[str, Any]
    extra: Sequence[Any]


def _additions(folder: Path, config: Mapping[str, Any]) -> _Additions:
    source = "tokenizer_config.json"
    eos_source = f"{source}: eos_token" if "eos_token" in config else "the default of its class"
    named = {name: value for name, value in config.items() if _is_name(name)}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        named, extra = named | extra, []
    try:
        if config.get("added_tokens_decoder") is not None:
            entries = {int(index): _added(entry) for index, entry in config["added_tokens_decoder"].items()}
        else:  # files of older versions: read where tokenizer_config.json numbers no tokens itself
            source = "added_tokens.json"
            older = optional_json(folder / "special_tokens_map.json")
            named |= {name: value for name, value in older.items() if _is_name(name)}
            eos_source = "special_tokens_map.json: eos_token" if "eos_token" in older else eos_source
            extra = [*extra, *(older.get("extra_special_tokens") or [])]
            special = {_content(value) for value in (*(named.get(name) for name in STANDARD), *extra)}
            extra = extra or older.get("additional_special_tokens") or []
            numbered = optional_json(folder / source)
            entries = {
                int(index): _added({"content": text, "special": text in special, "normalized": text not in special})
                for text, index in numbered.items()
            }
        return _Additions(source, eos_source, entries, named, [value for value in extra if _content(value) is not None])
    except (ValueError, TypeError, AttributeError, KeyError) as failure:
        raise ModelError(f"{folder / source}: its added tokens cannot be read ({failure})", hint=_RESAVE) from None


def _is_name(key: str) -> bool:
    return key in STANDARD or key.endswith("_token")


def _added(value: Any, **more: bool) -> tokenizers.AddedToken:
    """A token that is written as a text or as an object with rules."""
    from tokenizers import AddedToken

    if isinstance(value, str):
        return AddedToken(value, **more)
    return AddedToken(value["content"], **{rule: bool(value[rule]) for rule in _RULES if rule in value} | more)


def _with_tokens(
    folder: Path, text: str, backend: tokenizers.Tokenizer, additions: _Additions, names: Mapping[str, str]
) -> tuple[str, tokenizers.Tokenizer]:
    """The definition with the tokens of other files: numbered ones first, then named and further ones at the end."""
    before = backend.get_added_tokens_decoder()
    wanted = [token for _, token in sorted(additions.entries.items())]
    for token in wanted:
        token.special = token.special or token.content in names.values()
    known = {token.content for token in (*before.values(), *wanted)}
    for value in (*additions.named.values(), *additions.extra):
        content = _content(value)
        if content is not None and content not in known:
            wanted.append(_added(value, special=True))
    backend.add_tokens(wanted)
    for index, token in additions.entries.items():
        given = backend.token_to_id(token.content)
        if given != index:
            raise ModelError(
                f"{folder}: the token '{token.content}' is {index} in {additions.source}, but {given} beside the "
                "vocabulary of tokenizer.json",
                hint=f"the files belong to different tokenizers: keep those that the model was trained with; {_RESAVE}",
            )
    after = backend.get_added_tokens_decoder()
    if {index: repr(token) for index, token in before.items()} == {index: repr(it) for index, it in after.items()}:
        return text, backend
    definition = json.loads(text)
    definition["added_tokens"] = [
        {"id": index, "content": token.content, **{rule: getattr(token, rule) for rule in _RULES}}
        for index, token in sorted(after.items())
    ]
    text = json.dumps(definition, ensure_ascii=False)
    return text, load_backend(text)


def _unwanted_prefix(config: Mapping[str, Any], backend: tokenizers.Tokenizer, names: Mapping[str, str]) -> str | None:
    """A ``add_bos_token`` that the post-processor contradicts; ``transformers`` 5 goes by the post-processor."""
    wanted, bos = config.get("add_bos_token"), names.get("bos_token")
    if not isinstance(wanted, bool) or bos is None:
        return None
    given = backend.encode("a").tokens[:1] == [bos]
    if wanted == given:
        return None
    return (
        f"tokenizer_config.json says add_bos_token: {str(wanted).lower()}, but the post-processor of tokenizer.json "
        f"puts {'no ' if wanted else ''}{bos} in front of a text; edgesdk goes by it, as transformers 5 does"
    )


def _template(folder: Path, config: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """The chat template: files of their own before ``tokenizer_config.json``, the one called "default" of several.

    ``chat_template.json`` belongs to the processor of a model that sees images; a tokenizer does not read it.
    """
    file, several = folder / "chat_template.jinja", folder / "additional_chat_templates"
    templates: dict[Any, Any] = {"default": read_text(file)} if file.exists() else {}
    for path in sorted(several.glob("*.jinja")):
        refuse_irregular(path, folder, ModelError)
        templates[path.name.removesuffix(".jinja")] = read_text(path)
    where = str(several)
    if not templates:
        processor = optional_json(folder / "chat_template.json") if "vision_config" in model else {}
        value, where = processor.get("chat_template") or config.get("chat_template"), f"{folder}: 'chat_template'"
        if isinstance(value, list):
            value = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        templates = value if isinstance(value, dict) else {"default": value} if isinstance(value, str) else {}
    if templates and not isinstance(templates.get("default"), str):
        raise ModelError(
            f"{where}: chat templates {', '.join(sorted(map(str, templates)))}, and none of them called 'default'",
            hint=f"copy the one that chats go through to {file}",
        )
    return templates.get("default")
