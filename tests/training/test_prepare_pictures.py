"""Pictures as they come: every kind is decoded upright and square, and what is broken says so."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.prepare.pictures import Square, check_aspect, choose_square, decode, decode_plane, encode_png
from training.prepare.sources import BrokenItem

RED, BLUE = (200, 30, 20), (10, 40, 220)


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def sides(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The colours in the middle of the left and of the right half."""
    pixels = np.asarray(picture).astype(int)
    row = pixels.shape[0] // 2
    return pixels[row, pixels.shape[1] // 4], pixels[row, 3 * pixels.shape[1] // 4]


@pytest.mark.parametrize(
    ("content", "tolerance"),
    [
        (saved(halves(), "PNG"), 0),
        (saved(halves(), "JPEG", quality=95), 6),
        (saved(halves().convert("CMYK"), "JPEG", quality=95), 8),
        (saved(halves().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), 0),
        (saved(halves().convert("RGBA"), "WEBP", lossless=True), 0),
    ],
    ids=["png", "jpeg", "cmyk", "palette", "webp"],
)
def test_every_kind_comes_out_in_its_colours(content: bytes, tolerance: int) -> None:
    picture = decode(content)
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    for found, expected in zip(sides(picture), (RED, BLUE), strict=True):
        assert np.abs(found - expected).max() <= tolerance


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    stored = halves().transpose(Image.Transpose.ROTATE_90)
    picture = decode(saved(stored, "JPEG", quality=95, exif=exif))
    assert picture.size == (40, 20)
    assert np.abs(sides(picture)[0] - RED).max() <= 8


def test_sixteen_bits_keep_their_levels() -> None:
    levels = np.array([[0, 1000, 30000, 65535]], np.uint16)
    plane = decode_plane(encode_png(levels), what="depth")
    np.testing.assert_allclose(np.asarray(plane), levels / 65535, atol=1e-7)
    assert np.asarray(decode(encode_png(levels)))[0, :, 0].tolist() == [0, 4, 117, 255]


def test_what_is_transparent_lies_on_white() -> None:
    picture = halves().convert("RGBA")
    picture.putalpha(Image.fromarray(np.repeat([[255] * 20 + [0] * 20], 20, 0).astype(np.uint8)))
    left, right = sides(decode(saved(picture, "PNG")))
    assert left.tolist() == list(RED) and right.tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (saved(halves(400, 200), "JPEG")[:1200], "picture truncated"),
        (saved(Image.effect_noise((64, 64), 50), "PNG")[:900], "picture truncated"),
        (b"<html>not found</html>", "picture unreadable"),
        (b"", "picture unreadable"),
    ],
)
def test_broken_pictures_say_why(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenItem) as caught:
        decode(content)
    assert caught.value.reason == reason and caught.value.detail


def test_a_layer_of_another_size_is_fitted_and_one_of_another_shape_refused() -> None:
    picture = halves(400, 200)
    check_aspect(Image.new("L", (200, 100)), picture, "mask")
    with pytest.raises(BrokenItem) as caught:
        check_aspect(Image.new("L", (200, 200)), picture, "mask")
    assert caught.value.reason == "mask of another shape" and "200 x 200" in caught.value.detail


def test_the_centre_square_is_the_same_part_of_picture_and_layer() -> None:
    square = choose_square(halves(400, 200), 64)
    assert square == Square(0.25, 0.0, 0.75, 1.0, 64)
    pixels = square.fit(halves(400, 200), Image.Resampling.BICUBIC)
    layer = square.fit(
        Image.fromarray(np.repeat([[0.0] * 50 + [1.0] * 50], 50, 0).astype(np.float32)), Image.Resampling.NEAREST
    )
    assert pixels.shape == (64, 64, 3) and layer.shape == (64, 64)
    assert pixels[5, 10].tolist() == list(RED) and pixels[5, 50].tolist() == list(BLUE)
    assert layer[:, :32].max() == 0 and layer[:, 32:].min() == 1


def test_random_squares_lie_within_the_picture() -> None:
    rng = np.random.default_rng(0)
    squares = [choose_square(halves(400, 200), 64, rng) for _ in range(50)]
    assert all(0 <= s.left < s.right <= 1 and (s.right - s.left) == pytest.approx(0.5) for s in squares)
    assert max(s.left for s in squares) - min(s.left for s in squares) > 0.3


def test_png_is_lossless(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)
