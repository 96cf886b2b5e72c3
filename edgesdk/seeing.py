"""Asking a vision-language bundle about images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .bundle import Bundle, check_runtime, kind_of
from .chat import bundle_tokenizer
from .converter import kind_converter
from .errors import EdgeError
from .generation import Sampling, Statistics, generate
from .kinds import VISION

if TYPE_CHECKING:
    import numpy as np

    from .session import VisionSession


def open_vision_session(bundle: Bundle, threads: int | None = None) -> VisionSession:
    """A session over the programs of a vision-language bundle.

    Raises:
        EdgeError: it is none, or the runtime is missing, of the wrong version, or refuses a program.
    """
    manifest = bundle.manifest
    if kind_of(manifest) != VISION:
        raise EdgeError(f"{manifest.model.name} is no vision-language model")
    check_runtime(manifest)
    converter = kind_converter(manifest.program.converter, VISION, manifest.model.name)
    session: VisionSession = converter.open(bundle.main, manifest.context, threads)
    return session


class Viewer:
    """A bundle's vision-language model with its tokenizer.

    Attributes:
        session: the programs.
        mark: how the token is written that stands for an image in a prompt.
        statistics: of the last answer.
    """

    def __init__(self, bundle: Bundle, *, sampling: Sampling | None = None, threads: int | None = None) -> None:
        self.session = open_vision_session(bundle, threads)
        self._tokenizer = bundle_tokenizer(bundle)
        self._sampling = sampling or Sampling()
        self.mark = self._tokenizer.token(self.session.image_token)
        self.statistics = Statistics()

    def ask(self, prompt: str, images: Sequence[np.ndarray], *, max_tokens: int = 256, stop: Sequence[str] = ()) -> str:
        """The answer to a prompt in which :attr:`mark` stands once for every image.

        Args:
            prompt: as the model was trained on it, with whatever its template puts around an image.
            images: float32 [channels, size, size] each, resized and normalized as the model was trained on them.
            max_tokens: most tokens of the answer.
            stop: strings that end it.

        Raises:
            EdgeError: another number of images than marks, or no room for an answer.
        """
        session = self.session
        ids: list[int] = []
        for token in self._tokenizer.encode(prompt, prefix=True):
            ids += [token] * (session.image_rows if token == session.image_token else 1)
        marks = ids.count(session.image_token) // session.image_rows
        if marks != len(images):
            raise EdgeError(f"{len(images)} images, but '{self.mark}' stands {marks} times in the prompt")
        if len(ids) >= session.context:
            raise EdgeError(f"{len(ids)} tokens leave no room for an answer in the context of {session.context}")
        session.reset()
        for image in images:
            session.show(image)
        self.statistics = Statistics()
        pieces = generate(
            session,
            self._tokenizer,
            ids,
            sampling=self._sampling,
            max_tokens=max_tokens,
            stop=stop,
            statistics=self.statistics,
        )
        return "".join(pieces)
