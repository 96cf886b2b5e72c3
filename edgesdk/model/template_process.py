"""Chat templates at work, in a process of their own that may die: started by ``template_runner``, never imported.

It reads one request a line and answers one line, both JSON. It needs Python's standard library and Jinja alone. Its
processor time a request and its memory are limited by the kernel, so that nothing which one expression of a template
can do outlasts them.
"""

from __future__ import annotations

import datetime
import json
import re
import resource
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_TRUSTED = ("assistant", "system")  # roles whose contents may hold tokens that are not special, such as <think>
_PLACEHOLDER = re.compile(r"%[-#0-9.]*[a-z]|\{[^{}]*\}")


class TooLongError(Exception):
    """A conversation is written longer than the limit."""


class ChanceError(Exception):
    """A template draws by chance, so that what it does here says nothing of what it does next."""


class Generation(Extension):
    """``{% generation %}`` marks the assistant's own text for training; the text is written as it stands."""

    tags = {"generation"}  # noqa: RUF012 - the attribute that Jinja reads

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Any) -> str:
        return str(caller())


class Template:
    """A compiled template whose special tokens are written as marks, and those in contents are not."""

    def __init__(self, source: str, tokens: list[dict[str, Any]]) -> None:
        """Compile.

        Args:
            source: Jinja.
            tokens: those to mark, with the keys ``text``, ``mark``, ``special`` and ``word`` (only between words).
        """
        environment = _environment()
        tree = environment.parse(source)
        literals = [node for node in tree.find_all((nodes.TemplateData, nodes.Const)) if _is_literal(node)]
        written = [_text(node) for node in literals]
        puts_together = _Composer(written, [token["text"] for token in tokens])
        composed = [token for token in tokens if not token["special"] or token["word"] or puts_together(token["text"])]
        self._literal = _Marks([token for token in tokens if token not in composed])
        self._composed = _Marks(composed)
        texts, special = (
            [token["text"] for token in composed],
            [token["text"] for token in composed if token["special"]],
        )
        stands = _stand_ins(texts)
        self._back = {ord(stand): letter for letter, stand in stands.items()}
        self._strict, self._lenient = _Guard(texts, stands), _Guard(special, stands)
        for node in literals if self._literal else ():
            _set_text(node, self._literal(_text(node)))
        self._template = environment.from_string(tree)

    def render(self, values: Mapping[str, Any], names: Mapping[str, str], most: int) -> str:
        """A conversation, with marks."""
        messages = [self._guarded(message) for message in values["messages"]]
        variables = {**{name: self._literal(text) for name, text in names.items()}, **values, "messages": messages}
        text = self._composed("".join(_bounded(self._template.generate(variables), most)))
        return text.translate(self._back) if self._back else text

    def _guarded(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message out of which the template cannot compose a token that is marked only after rendering."""
        guard = self._lenient if message.get("role") in _TRUSTED else self._strict
        return {key: value if key == "role" else guard.applied(value) for key, value in message.items()}


class _Marks:
    """Writes marks in the place of tokens: the longest of those that begin at a place."""

    def __init__(self, tokens: list[dict[str, Any]]) -> None:
        self._of = {token["text"]: token["mark"] for token in tokens}
        longest_first = sorted(tokens, key=lambda token: -len(token["text"]))
        parts = [rf"(?<!\w){_quoted(token)}(?!\w)" if token["word"] else _quoted(token) for token in longest_first]
        self._pattern = re.compile("|".join(parts))

    def __bool__(self) -> bool:
        return bool(self._of)

    def __call__(self, text: str) -> str:
        return self._pattern.sub(lambda found: str(self._of[found[0]]), text) if self._of else text


class _Guard:
    """Puts a stand-in for one letter of each token in a text, and of each that could become one beside other text."""

    def __init__(self, texts: list[str], stands: Mapping[str, str]) -> None:
        self._texts, self._stands = set(texts), stands
        self._sizes = sorted({len(text) for text in texts})
        self._first = re.compile(f"[{re.escape(''.join({text[0] for text in texts}))}]") if texts else None
        self._starts = {text[:size] for text in texts for size in range(1, len(text))}
        self._ends = {text[-size:] for text in texts for size in range(1, len(text))}

    def applied(self, value: Any) -> Any:
        """The value, with every text in it guarded."""
        if self._first is None:
            return value
        if isinstance(value, str):
            return self._text(value, self._first)
        if isinstance(value, list):
            return [self.applied(item) for item in value]
        if isinstance(value, dict):
            return {self.applied(key): self.applied(item) for key, item in value.items()}
        return value

    def _text(self, text: str, first: re.Pattern[str]) -> str:
        places = [
            found.start()
            for found in first.finditer(text)
            if any(text[found.start() : found.start() + size] in self._texts for size in self._sizes)
        ]
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        for size in range(1, min(self._sizes[-1], end - start + 1)):
            if text[end - size : end] in self._starts:
                places.append(end - size)
            if text[start : start + size] in self._ends:
                places.append(start + size - 1)
        if not places:
            return text
        guarded = list(text)
        for place in places:
            guarded[place] = self._stands[text[place]]
        return "".join(guarded)


class _Composer:
    """Whether a template could put a token together: it is one word, or some literals are its beginning and its end."""

    def __init__(self, literals: list[str], tokens: list[str]) -> None:
        whole = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
        parts = [part for literal in literals for part in (whole.split(literal) if tokens else [literal])]
        pieces = [piece for part in parts for piece in _PLACEHOLDER.split(part)]
        sizes = range(1, max(map(len, tokens), default=0))
        self._endings = {piece[-size:] for piece in pieces for size in sizes}
        self._beginnings = {piece[:size] for piece in pieces for size in sizes}

    def __call__(self, token: str) -> bool:
        sizes = range(1, len(token))
        begun = any(token[:size] in self._endings for size in sizes)
        return token.isalnum() or (begun and any(token[-size:] in self._beginnings for size in sizes))


def _stand_ins(texts: list[str]) -> dict[str, str]:
    """For the first and the last letter of each token a letter of private use."""
    first = 0x100000 + secrets.randbelow(0xE000)
    letters = sorted({text[0] for text in texts} | {text[-1] for text in texts})
    return {letter: chr(first + index) for index, letter in enumerate(letters)}


def _quoted(token: Mapping[str, Any]) -> str:
    return re.escape(str(token["text"]))


def _is_literal(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData) or isinstance(getattr(node, "value", None), str)


def _text(node: nodes.Node) -> str:
    return node.data if isinstance(node, nodes.TemplateData) else node.value  # type: ignore[attr-defined]


def _set_text(node: nodes.Node, text: str) -> None:
    if isinstance(node, nodes.TemplateData):
        node.data = text
    else:
        node.value = text  # type: ignore[attr-defined]


def _bounded(pieces: Iterator[str], most: int) -> Iterator[str]:
    left = most
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise TooLongError(f"it writes more than {most} characters")
        yield piece


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters.update(tojson=_to_json, random=_by_chance)
    environment.globals.update(lipsum=_by_chance, raise_exception=_refuse, strftime_now=_now)
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's filter of this name escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _by_chance(*_: object) -> None:
    raise ChanceError("it draws by chance, which no chat template needs")


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def serve(answers: Callable[[str], object]) -> None:
    """Answer requests until there are no more."""
    templates: dict[str, Template] = {}
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # its signal ends the process
        try:
            if "source" in request:
                templates[request["key"]] = Template(request["source"], request["tokens"])
            template = templates[request["key"]]
            reply = {"text": template.render(request["values"], request["names"], request["most"])}
        except Exception as failure:  # a template may raise anything that its expressions can
            reply = {"failed": str(failure), "kind": type(failure).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers(json.dumps(reply | {"kept": request["key"] in templates}) + "\n")


def _answer(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(_answer)
