"""Image files as a vision-language model reads them: square pictures, and what the prompt says of them.

Follows transformers' Idefics3 and SmolVLM processors (arXiv 2408.12637, section 2.2.3; arXiv 2504.05299): an image is
resized to a given longest edge, then to whole tiles; the tiles and the image as a whole are pictures of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import EdgeError, MissingExtraError, ModelError
from ..config import Config
from ..vision_spec import Preparation

if TYPE_CHECKING:
    from PIL.Image import Image

_FILES = ("preprocessor_config.json", "processor_config.json")
_LARGEST = 4096  # edge, in pixels, whatever a checkpoint asks for (as transformers)
_FILTERS = range(6)  # Pillow's numbers of resampling filters


@dataclass(frozen=True)
class Pictures:
    """What becomes of one image.

    Attributes:
        pixels: float32 [channels, size, size] each: tiles row by row, then the image as a whole.
        rows: of tiles; 0 where the whole image is all there is.
        columns: the same.
    """

    pixels: tuple[np.ndarray, ...]
    rows: int = 0
    columns: int = 0


def read_preparation(folder: Path, size: int, around: str, whole: str, tile: str) -> Preparation | None:
    """What a checkpoint's processor does to images; None where the folder has no processor.

    Args:
        folder: of the checkpoint.
        size: edge of a picture for the encoder.
        around: as :attr:`Preparation.around`.
        whole: as :attr:`Preparation.whole`.
        tile: as :attr:`Preparation.tile`.

    Raises:
        ModelError: the processor does what is not built.
    """
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    config = Config.read(path)
    config = config.section("image_processor") if isinstance(config.get("image_processor"), dict) else config
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if not config.flag(key, True):
            raise ModelError(f"{config.where}: '{key}' is false: such images are not built")
    edge = config.section("max_image_size").integer("longest_edge", size)
    if edge != size:
        raise ModelError(f"{config.where}: pictures of {edge} pixels, but the encoder reads {size}")
    resample = config.get("resample")
    if resample not in _FILTERS:
        raise ModelError(f"{config.where}: 'resample' is {resample!r}, no filter of Pillow")
    return Preparation(
        min(config.section("size").integer("longest_edge", 4 * size), _LARGEST),
        config.flag("do_image_splitting", True),
        _channels(config, "image_mean"),
        _channels(config, "image_std"),
        config.number("rescale_factor", 1 / 255),
        int(resample),
        around,
        whole,
        tile,
    )


def _channels(config: Config, key: str) -> tuple[float, ...]:
    values = config.get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(each, (int, float)) for each in values):
        raise ModelError(f"{config.where}: '{key}' must be a list of three numbers, found {values!r}")
    return tuple(float(each) for each in values)


def open_image(path: Path) -> Image:
    """An image file in RGB, turned as its camera says.

    Raises:
        EdgeError: it cannot be read, or is no image.
    """
    pillow = _pillow()
    try:
        with pillow.Image.open(path) as opened:
            found: Image = pillow.ImageOps.exif_transpose(opened).convert("RGB")
            return found
    except (OSError, ValueError, SyntaxError, pillow.Image.DecompressionBombError) as failure:
        said = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure)
        raise EdgeError(f"{path}: no image that can be read ({said})") from None


def pictures(image: Image, preparation: Preparation, size: int, tiles: bool) -> Pictures:
    """Pictures of an RGB image; with ``tiles``, it is cut too where it is larger than one."""
    pillow = _pillow()
    chosen = pillow.Image.Resampling(preparation.resample)
    image = image.resize(_longest(*image.size, preparation.longest), chosen)
    columns = rows = 0
    cut = []
    if tiles:
        width, height = _whole_tiles(*image.size, size)
        image = image.resize((width, height), chosen)
        if max(width, height) > size:
            columns, rows = width // size, height // size
            corners = [(column * size, row * size) for row in range(rows) for column in range(columns)]
            cut = [image.crop((left, top, left + size, top + size)) for left, top in corners]
    cut.append(image.resize((size, size), chosen))
    return Pictures(tuple(_pixels(each, preparation) for each in cut), rows, columns)


def said_of(found: Pictures, preparation: Preparation, mark: str) -> str:
    """What stands in a prompt in the place of an image: ``mark`` once for every picture, and the words around it."""
    around, lines = preparation.around, ""
    for row in range(found.rows):
        tiles = (preparation.tile.format(row=row + 1, column=column + 1) for column in range(found.columns))
        lines += "".join(f"{around}{tile}{mark}" for tile in tiles) + "\n"
    return f"{lines}{chr(10) if lines else ''}{around}{preparation.whole}{mark}{around}"


def _longest(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height with that longest edge; the other edge is even."""
    if width >= height:
        other = int(longest / (width / height))
        return longest, max(1, other + other % 2)
    other = int(longest * (width / height))
    return max(1, other + other % 2), longest


def _whole_tiles(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height in whole tiles, about in the same ratio."""
    ratio = width / height
    if width >= height:
        wide = _up(width, size)
        return wide, _up(int(wide / ratio), size)
    high = _up(height, size)
    return _up(int(high * ratio), size), high


def _up(edge: int, size: int) -> int:
    return math.ceil(edge / size) * size


def _pixels(image: Image, preparation: Preparation) -> np.ndarray:
    values = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) * np.float32(preparation.scale)
    mean, std = (np.array(part, dtype=np.float32)[:, None, None] for part in (preparation.mean, preparation.std))
    return np.asarray((values - mean) / std, dtype=np.float32)


def _pillow() -> Any:
    try:
        import PIL
        import PIL.Image
        import PIL.ImageOps
    except ModuleNotFoundError as failure:
        raise MissingExtraError((failure.name or "PIL").partition(".")[0], "images") from None
    return PIL
