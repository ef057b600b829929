"""Pictures as they come, and as training takes them: decoded, upright, square."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .sources.base import BrokenItem, Layer

_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Square:
    """The part of a picture that is kept, in fractions of its width and height, and the side it gets in pixels."""

    left: float
    top: float
    right: float
    bottom: float
    side: int

    def fit(self, picture: Image.Image, resample: Image.Resampling) -> np.ndarray:
        """That part of a picture or layer, in one resampling step that averages where it shrinks."""
        width, height = picture.size
        box = (self.left * width, self.top * height, self.right * width, self.bottom * height)
        return np.asarray(picture.resize((self.side, self.side), resample, box=box))


def decode(content: Layer, *, what: str = "picture") -> Image.Image:
    """An upright 8-bit RGB picture of a file's bytes or an array.

    EXIF orientation is applied; CMYK and palettes are converted; 16 bits become 8; what is transparent lies on white;
    of an animation the first frame counts. Raises BrokenItem for what is no whole picture.
    """
    picture = _opened(content, what)
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        return Image.fromarray(np.rint(_levels(picture, what) * 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def decode_plane(content: Layer, *, what: str) -> Image.Image:
    """One value a pixel, as floats in [0, 1]: a mask or a depth map, of 8 or 16 bits. Raises BrokenItem."""
    picture = _opened(content, what)
    return Image.fromarray(_levels(picture, what).astype(np.float32))


def check_aspect(layer: Image.Image, picture: Image.Image, what: str) -> None:
    """Raises BrokenItem where a layer has not the picture's aspect; another size alone is no harm."""
    ratio = (layer.width * picture.height) / (layer.height * picture.width)
    if abs(ratio - 1) > _ASPECT_TOLERANCE:
        raise BrokenItem(
            f"{what} of another shape",
            f"{what} is {layer.width} x {layer.height}, the picture {picture.width} x {picture.height}",
        )


def choose_square(picture: Image.Image, side: int, rng: np.random.Generator | None = None) -> Square:
    """The largest square of a picture: its centre, or where `rng` puts it."""
    short = min(picture.size)
    places = [0.5 if rng is None else float(rng.random()) for _ in range(2)]
    left, top = (place * (length - short) / length for place, length in zip(places, picture.size, strict=True))
    return Square(left, top, left + short / picture.width, top + short / picture.height, side)


def encode_png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) RGB or (H, W), of 8 or 16 bits, as PNG."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"no PNG can be made of {pixels.dtype} {pixels.shape}")
    return bytes(encoded)


def _opened(content: Layer, what: str) -> Image.Image:
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
        return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise BrokenItem(f"{what} unreadable", f"no picture format: {content[:16]!r}, {len(content)} bytes") from None
    except Image.DecompressionBombError as error:
        raise BrokenItem(f"{what} too large", str(error)) from error
    except Exception as error:  # Pillow's decoders raise whatever their parsing meets: TypeError, struct.error, ...
        reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise BrokenItem(f"{what} {reason}", f"{type(error).__name__}: {error}") from error


def _levels(picture: Image.Image, what: str) -> np.ndarray:
    """A picture's brightness in [0, 1], whatever its depth."""
    if picture.mode == "F":
        levels = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(levels).all() or levels.min() < 0 or levels.max() > 1:
            raise BrokenItem(f"{what} unreadable", "floating-point values outside [0, 1]")
        return levels
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return np.asarray(picture, dtype=np.float64).clip(0, 65535) / 65535
    if "A" in picture.mode or picture.mode == "P":
        picture = picture.convert("RGB")
    return np.asarray(picture.convert("L"), dtype=np.float64) / 255
