"""ExecuTorch's own ``TextLLMRunner``, as apps on phones use it: text in, text out, its own tokenizer and sampling."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from edgesdk.errors import BundleError, EdgeError, MissingExtraError
from edgesdk.partials import scratch_folder
from edgesdk.session import RunnerStatistics

from .format import check_file
from .native import native_log
from .wheel import load_runtime, version

#: Texts in which words, numbers, marks and spaces meet as they do everywhere.
_PROBES = ("Hello world, it's 12345 o'clock!\n\n a  b", "f(x): 3.14\r\n\tg")


class ExecuTorchRunner:
    """Runs a bundle's program and tokenizer in ``TextLLMRunner``; see :class:`edgesdk.session.TextRunner`."""

    def __init__(self, program: Path, tokenizer: Path) -> None:
        """Load both.

        Raises:
            BundleError: the runner refuses the program or the tokenizer.
        """
        check_file(program)
        load_runtime()  # its kernels: the runner alone fails with a missing operator
        with native_log() as log:
            try:
                self._module: Any = import_module("executorch.extension.llm.runner._llm_runner")
                self._runner = self._module.TextLLMRunner(str(program), str(tokenizer))
            except ModuleNotFoundError as failure:
                raise MissingExtraError(failure.name or "executorch", "executorch") from None
            except RuntimeError as failure:
                raise BundleError(
                    f"ExecuTorch {version()}'s text runner refuses {program.name} or {tokenizer.name}: {failure} "
                    f"{_last_line(log())}"
                ) from None

    def generate(
        self,
        prompt: str,
        on_text: Callable[[str], None],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        bos_tokens: int = 0,
    ) -> RunnerStatistics:
        found: list[Any] = []
        config = self._module.GenerationConfig(
            echo=False,
            max_new_tokens=max_tokens,
            temperature=temperature,
            num_bos=bos_tokens,
            warming=True,  # the only way to keep it from printing on standard output
        )
        with native_log() as log:
            try:
                self._runner.generate(prompt, config, on_text, found.append)
            except UnicodeDecodeError:
                raise EdgeError(
                    "ExecuTorch's Python binding stops at a character that several tokens make up",
                    hint="run without --runner; on Android its runner passes such characters on, on iOS it drops them",
                ) from None
            except RuntimeError as failure:
                raise EdgeError(
                    f"ExecuTorch {version()}'s text runner failed: {str(failure).splitlines()[0]} {_last_line(log())}"
                ) from None
        (stats,) = found
        return RunnerStatistics(
            stats.num_prompt_tokens,
            stats.num_generated_tokens,
            (stats.prompt_eval_end_ms - stats.inference_start_ms) / 1000,
            (stats.inference_end_ms - stats.prompt_eval_end_ms) / 1000,
        )


def _last_line(log: str) -> str:
    lines = log.strip().splitlines()
    return f"({lines[-1].rpartition('] ')[2].strip()})" if lines else ""


def refused_tokenizer(definition: str) -> str | None:
    """Why ExecuTorch's own tokenizer does not read a ``tokenizer.json``; None where it does, or is not installed.

    One that loads may still give other ids: it drops what a split's pattern does not match.
    """
    from tokenizers import Tokenizer

    with scratch_folder() as folder, native_log() as log:
        path = folder / "tokenizer.json"
        path.write_text(definition, encoding="utf-8")
        try:
            reader = import_module("pytorch_tokenizers").CppHFTokenizer()
            reader.load(str(path))
            given = [list(reader.encode(text, 0, 0)) for text in _PROBES]
        except ModuleNotFoundError:
            return None
        except RuntimeError as failure:
            return _last_line(log()).strip("() ") or str(failure)
    whole = Tokenizer.from_str(definition)
    for text, ids in zip(_PROBES, given, strict=True):
        if ids != whole.encode(text, add_special_tokens=False).ids:
            return f"it gives other ids, for instance for {text!r}"
    return None
