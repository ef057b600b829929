"""Folders of pictures, made here or elsewhere, and the metrics of the paper's tables on them.

FID and Inception Score (torchmetrics, with torch-fidelity's Inception), SSIM (torchmetrics), LPIPS (its authors'
package), CLIPScore and the regional cosines of appendix A.4 (transformers), the mean absolute error of depth maps (this
project's estimators). Every weight comes from a local file. FID, Inception Score and LPIPS are defined by their
weights, so files of other contents are refused: no look-alike goes under their names.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from training.config import ConfigError
from training.files import file_hash

from .folder import Row
from .lpips_weights import backbone_weights

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
"""The file's name as its authors publish it: the last part is the beginning of its SHA-256."""
SPLITS = 10
_BATCH = 16


class Pictures:
    """A folder of pictures, in the order of their names without the ending. Raises ConfigError where it has none."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ConfigError(f"{path} is no folder of pictures")
        found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in ENDINGS]
        self.path, self.files = path, {file.stem: file for file in found}
        if not found:
            raise ConfigError(f"{path} holds no pictures ({', '.join(ENDINGS)})")
        if len(self.files) < len(found):
            raise ConfigError(f"{path} holds two pictures of one name with different endings")

    def limited(self, names: Sequence[str]) -> Pictures:
        """The same folder with these pictures alone. Raises ConfigError where one is missing."""
        missing = [name for name in names if name not in self.files]
        if missing:
            raise ConfigError(f"{self.path} lacks {len(missing)} of {len(names)} pictures, {missing[0]} for one")
        part = Pictures.__new__(Pictures)
        part.path, part.files = self.path, {name: self.files[name] for name in names}
        return part

    def key(self) -> str:
        """A hash of all names and contents."""
        total = hashlib.sha256()
        for name, file in self.files.items():
            total.update(f"{name} {file_hash(file)}\n".encode())
        return total.hexdigest()

    def read(self, name: str) -> Tensor:
        """A picture as bytes (3, H, W)."""
        try:
            with Image.open(self.files[name]) as opened:
                pixels = np.asarray(opened.convert("RGB"))
        except OSError as error:
            raise ConfigError(f"{self.files[name]} cannot be read: {error}") from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

    def batches(self) -> Iterator[Tensor]:
        """All pictures as bytes (B, 3, H, W), those of one size in a row together."""
        held: list[Tensor] = []
        for name in self.files:
            picture = self.read(name)
            if held and (picture.shape != held[0].shape or len(held) == _BATCH):
                yield torch.stack(held)
                held = []
            held.append(picture)
        yield torch.stack(held)


def pairs(made: Pictures, true: Pictures) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, made and true picture (1, 3, H, W) in [0, 1]. Raises ConfigError where their sizes differ."""
    for name in made.files:
        one, other = made.read(name), true.read(name)
        if one.shape != other.shape:
            sizes = " and ".join(f"{p.shape[2]} x {p.shape[1]}" for p in (one, other))
            raise ConfigError(f"{name}: made and true picture have the sizes {sizes}; bring them to one size first")
        yield name, one[None].float() / 255, other[None].float() / 255


@contextlib.contextmanager
def _needing(package: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, RuntimeError) as error:  # the latter where torch and torchvision do not belong together
        raise ConfigError(
            f"this metric needs {package}, which cannot be imported ({error}): pip install {package}, or the extra "
            f"`evaluation`"
        ) from error


def _inception(folder: Path, feature: str, metric: str, device: torch.device) -> Any:
    """Inception from its published file. Raises ConfigError where that is not there or holds something else."""
    path = folder / INCEPTION
    if not path.exists():
        raise ConfigError(
            f"{metric} needs the weights {INCEPTION} in {folder}: get them, or leave {metric} out (--metrics)"
        )
    begin = INCEPTION.removesuffix(".pth").rpartition("-")[2]
    if not file_hash(path).startswith(begin):
        raise ConfigError(f"{path} is not the published file (its SHA-256 begins {begin}): {metric} is defined by it")
    with _needing("torch-fidelity"):
        import torch_fidelity  # noqa: F401 - torchmetrics asks for it late, and by another error
        from torchmetrics.image.fid import NoTrainInceptionV3
    # antialias=False resizes as torch-fidelity and the original do
    return NoTrainInceptionV3("inception-v3-compat", [feature], str(path), antialias=False).to(device)


def fid(made: Pictures, true: Pictures, weights: Path, device: torch.device) -> list[Row]:
    """Frechet Inception Distance (Heusel et al. 2017) between two folders; smaller is nearer."""
    if len(made.files) < 2 or len(true.files) < 2:
        raise ConfigError("FID needs at least two pictures on either side")
    network = _inception(weights, "2048", "fid", device)
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(network).to(device)
    for real, folder in ((True, true), (False, made)):
        for batch in folder.batches():
            metric.update(batch.to(device), real=real)
    return [{"value": float(metric.compute())}]


def inception_score(made: Pictures, weights: Path, device: torch.device) -> list[Row]:
    """Inception Score (Salimans et al. 2016): the mean over ten splits, and their deviation."""
    if len(made.files) < SPLITS:
        raise ConfigError(f"the Inception Score needs at least {SPLITS} pictures, one a split; got {len(made.files)}")
    network = _inception(weights, "logits_unbiased", "is", device)
    from torchmetrics.image.inception import InceptionScore

    metric = InceptionScore(network, splits=SPLITS).to(device)
    for batch in made.batches():
        metric.update(batch.to(device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # it shuffles before it splits
        mean, deviation = metric.compute()
    return [{"value": float(mean), "deviation": float(deviation)}]


@torch.no_grad()
def ssim(made: Pictures, true: Pictures) -> list[Row]:
    """Structural similarity (Wang et al. 2004) of each pair; 1 is the same picture."""
    with _needing("torchmetrics"):
        from torchmetrics.functional.image import structural_similarity_index_measure

    return [
        {"picture": name, "value": float(structural_similarity_index_measure(one, other, data_range=1.0))}
        for name, one, other in pairs(made, true)
    ]


@torch.no_grad()
def lpips(made: Pictures, true: Pictures, weights: Path, backbone: str, device: torch.device) -> list[Row]:
    """LPIPS v0.1 (Zhang et al. 2018) of each pair; 0 is the same picture."""
    network = lpips_network(backbone_weights(weights, backbone), backbone).to(device)
    return [
        {"picture": name, "value": float(network(one.to(device), other.to(device), normalize=True))}
        for name, one, other in pairs(made, true)
    ]


def lpips_network(state: dict[str, Tensor], backbone: str) -> Any:
    """LPIPS with its published heads on torchvision's weights of a backbone."""
    with _needing("lpips"):
        import lpips as package

    network = package.LPIPS(net=backbone, version="0.1", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    named = {key: key.split(".", 1)[1] for key in network.net.state_dict()}  # "slice2.3.weight": layer 3 of "features"
    network.net.load_state_dict({key: state[f"features.{layer}"] for key, layer in named.items()})
    return network


def _clip(folder: Path, metric: str) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{metric} needs a CLIP model of the transformers library in {folder} (config.json, weights, tokenizer): "
            f"give --clip, or leave {metric} out (--metrics)"
        )
    with _needing("transformers"):
        from transformers import CLIPModel, CLIPProcessor

    return CLIPModel.from_pretrained(folder, local_files_only=True).eval(), CLIPProcessor.from_pretrained(
        folder, local_files_only=True
    )


@torch.no_grad()
def clip_score(made: Pictures, captions: dict[str, str], clip: Path, device: torch.device) -> list[Row]:
    """CLIPScore of each picture and its caption: 100 max(cosine, 0), as torchmetrics and the paper's table scale it
    (Hessel et al. 2021 have 2.5 in place of 100)."""
    model, processor = _clip(clip, "clip")
    model.to(device)
    missing = [name for name in made.files if name not in captions]
    if missing:
        raise ConfigError(f"no caption for {len(missing)} of {len(made.files)} pictures, {missing[0]} for one")
    rows = []
    for name in made.files:
        inputs = processor(
            text=[captions[name]], images=[made.read(name)], return_tensors="pt", padding=True, truncation=True
        )
        found = model(**{key: value.to(device) for key, value in inputs.items()})
        cosine = F.cosine_similarity(found.image_embeds, found.text_embeds)
        rows.append({"picture": name, "value": 100 * max(float(cosine), 0.0)})
    return rows


@torch.no_grad()
def regional_cosine(
    made: Pictures, masks: Pictures, fg: Pictures, bg: Pictures, clip: Path, device: torch.device
) -> list[Row]:
    """Appendix A.4: the cosines of CLIP(I_gen * M) with the foreground's exemplar and of CLIP(I_gen * (1 - M)) with
    the background's, and their mean."""
    model, processor = _clip(clip, "regions")
    model.to(device)

    def embed(picture: Tensor) -> Tensor:
        pixels = processor(images=[picture], return_tensors="pt")["pixel_values"].to(device)
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)

    rows = []
    for name in made.files:
        picture, mask = made.read(name), masks.read(name)[:1].float() / 255
        if mask.shape[1:] != picture.shape[1:]:
            mask = F.interpolate(mask[None], picture.shape[1:], mode="nearest")[0]
        values = []
        for region, exemplar in ((mask > 0.5, fg), (mask <= 0.5, bg)):
            both = embed(picture * region), embed(exemplar.read(name))
            values.append(float(F.cosine_similarity(*both)))
        rows.append({"picture": name, "fg": values[0], "bg": values[1], "value": sum(values) / 2})
    return rows


@torch.no_grad()
def depth_error(made: Pictures, true: Pictures, estimator: str, models: Sequence[Path] = ()) -> list[Row]:
    """The mean absolute difference of each pair's depth maps, either spread to [0, 1] (paper, Table 2).

    Args:
        made: pictures to measure.
        true: those of the same names to compare them with.
        estimator: its name, as in the nodes, or its path.
        models: folders in which it is looked for by name.
    """
    from cnc_core.perception import depth_map, load_depth

    path = Path(estimator)
    network = load_depth(path.name, [path.parent]) if path.exists() else load_depth(estimator, models)
    rows = []
    for name, one, other in pairs(made, true):
        maps = [depth_map(network, picture.movedim(1, -1)) for picture in (one, other)]
        rows.append({"picture": name, "value": float((maps[0] - maps[1]).abs().mean())})
    return rows


def read_captions(path: Path) -> dict[str, str]:
    """Lines of `name:caption`, the name being a picture's without its ending (the release's captions.txt)."""
    captions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, colon, caption = line.partition(":")
        if line.strip() and not colon:
            raise ConfigError(f"{path}, line {number}: expected `name:caption`, got {line[:60]!r}")
        captions[name.strip()] = caption.strip()
    return captions
