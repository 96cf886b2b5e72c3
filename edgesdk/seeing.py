"""Asking a vision-language bundle about images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .bundle import Bundle, kind_of
from .bundle.admission import admit
from .chat import bundle_tokenizer
from .converter import kind_converter
from .errors import EdgeError
from .generation import Sampling, Statistics, generate
from .kinds import VISION
from .model.vision.preparing import open_image, pictures, said_of
from .model.vision_spec import Preparation
from .schema import load

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from .session import VisionSession


def open_vision_session(bundle: Bundle, threads: int | None = None) -> VisionSession:
    """A session over the programs of a vision-language bundle.

    Raises:
        EdgeError: it is none, or the runtime is missing, of the wrong version, or refuses a program.
    """
    manifest = bundle.manifest
    if kind_of(manifest) != VISION:
        raise EdgeError(f"{manifest.model.name} is no vision-language model")
    admit(bundle, threads)
    converter = kind_converter(manifest.program.converter, VISION, manifest.model.name)
    session: VisionSession = converter.open(bundle.main, manifest.context, threads)
    return session


class Viewer:
    """A bundle's vision-language model with its tokenizer.

    Attributes:
        session: the programs.
        mark: how the token is written that stands for a picture in a prompt.
        statistics: of the last answer.
    """

    def __init__(self, bundle: Bundle, *, sampling: Sampling | None = None, threads: int | None = None) -> None:
        self.session = open_vision_session(bundle, threads)
        self._tokenizer = bundle_tokenizer(bundle)
        self._sampling = sampling or Sampling()
        self.mark = self._tokenizer.token(self.session.image_token)
        self.statistics = Statistics()
        said = bundle.manifest.model.spec.get("preparation")
        self._preparation = load(Preparation, said, "the manifest's preparation") if said else None

    def ask(
        self,
        question: str,
        images: Sequence[Path | Image],
        *,
        tiles: bool | None = None,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
    ) -> str:
        """The whole answer; arguments and errors as :meth:`stream` has them."""
        return "".join(self.stream(question, images, tiles=tiles, max_tokens=max_tokens, stop=stop))

    def stream(
        self,
        question: str,
        images: Sequence[Path | Image],
        *,
        tiles: bool | None = None,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """The answer to a question about images, piece by piece.

        Args:
            question: what to ask; the bundle's chat template puts the images before it.
            images: files, or RGB images of Pillow.
            tiles: whether large images are cut into tiles too, which shows more and takes longer; None: as the model's
                own processor does.
            max_tokens: most tokens of the answer.
            stop: strings that end it.

        Raises:
            EdgeError: an image cannot be read, or there is no room for an answer.
        """
        if images and self._preparation is None:
            raise EdgeError(
                "this bundle does not say how images are prepared: its checkpoint had no preprocessor_config.json",
                hint="export again from a folder that has it, or prepare them: Viewer.stream_pixels",
            )
        around = self._around(question, len(images))
        pixels: list[np.ndarray] = []
        prompt = around[0]
        for image, behind in zip(images, around[1:], strict=True):
            assert self._preparation is not None
            opened = open_image(image) if isinstance(image, Path) else image
            cut = self._preparation.tiles if tiles is None else tiles
            found = pictures(opened, self._preparation, self.session.image_size, cut)
            pixels += found.pixels
            said = said_of(found, self._preparation, self.mark)
            prompt += (self._tokenizer.sealed.marked(said) if self._templated else said) + behind
        ids = self._tokenizer.sealed_ids(prompt) if self._templated else self._tokenizer.encode(prompt, prefix=True)
        return self._answered(ids, pixels, max_tokens, stop)

    def stream_pixels(
        self, prompt: str, pixels: Sequence[np.ndarray], *, max_tokens: int = 256, stop: Sequence[str] = ()
    ) -> Iterator[str]:
        """The answer to a prompt in which :attr:`mark` stands once for every picture.

        Args:
            prompt: as the model was trained on it, with whatever its template puts around an image.
            pixels: float32 [channels, size, size] each, resized and normalized as the model was trained on them.
            max_tokens: most tokens of the answer.
            stop: strings that end it.

        Raises:
            EdgeError: another number of pictures than marks, or no room for an answer.
        """
        written = self._tokenizer.encode(prompt, prefix=not self._templated)
        return self._answered(written, pixels, max_tokens, stop)

    def _answered(
        self, written: Sequence[int], pixels: Sequence[np.ndarray], max_tokens: int, stop: Sequence[str]
    ) -> Iterator[str]:
        session = self.session
        ids: list[int] = []
        for token in written:
            ids += [token] * (session.image_rows if token == session.image_token else 1)
        marks = ids.count(session.image_token) // session.image_rows
        if marks != len(pixels):
            raise EdgeError(f"{len(pixels)} images, but '{self.mark}' stands {marks} times in the prompt")
        if len(ids) >= session.context:
            raise EdgeError(
                f"{len(ids)} tokens leave no room for an answer in the context of {session.context}",
                hint=f"a picture takes {session.image_rows}: look at whole images alone (--no-tiles), or export with a "
                "larger --context",
            )
        session.reset()
        for picture in pixels:
            session.show(picture)
        self.statistics = Statistics()
        return generate(
            session,
            self._tokenizer,
            ids,
            sampling=self._sampling,
            max_tokens=max_tokens,
            stop=stop,
            statistics=self.statistics,
        )

    @property
    def _templated(self) -> bool:
        return self._tokenizer.chat_template is not None

    def _around(self, question: str, images: int) -> list[str]:
        """The conversation's text before, between and behind the images; special tokens are marks where templated."""
        if self.mark in question:
            raise EdgeError(f"'{self.mark}' stands for a picture, and cannot be part of a question")
        if not self._templated:
            return [*[""] * images, question]
        parts = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
        rendered = self._tokenizer.render_sealed([{"role": "user", "content": parts}])
        around = rendered.split(self._tokenizer.sealed.marked(self.mark))
        if len(around) != images + 1:
            raise EdgeError(
                f"the chat template writes '{self.mark}' {len(around) - 1} times for {images} images",
                hint="its checkpoint belongs to another kind of model: Viewer.stream_pixels takes a whole prompt",
            )
        return around
