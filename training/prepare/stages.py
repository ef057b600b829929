"""The stages from an id to a sample. Each takes a `Work` and gives it on with more in it, or with fewer drafts.

A stage is built where it runs (it loads its networks then), works on the drafts of one `Work` as one batch, and is the
same in every engine. Batches are formed from the list of ids, so that who is in a batch with whom does not depend on
workers.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnc_core.perception import depth_map, dilate, estimate, inpaint, load_depth, load_inpainter, load_saliency
from cnc_core.perception.estimator import Inpainter, MapEstimator
from cnc_core.triplet import Triplet, cut_out, make_triplet

from ..prepared import DEPTH_MAX, MASK_MAX, Sample, Skip
from .batches import Draft, Work
from .config import GIVEN, NO_TEXT, PrepareConfig, open_source
from .diffusion_inpaint import DiffusionInpainter, is_diffusion, load_diffusion_inpainter
from .encoders import CaptionEncoder, LatentEncoder, PictureEncoder
from .pictures import check_aspect, choose_square, decode, decode_plane, encode_png
from .sources import BrokenItem, Source
from .sources.base import printable

NOT_BROKEN = ("no object", "no background left", "too small")
"""Reasons for leaving a picture out that say nothing against the source."""
_CANNY = (100, 200)
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PLANES = ("mask", "fg_depth", "bg_depth", "source_depth")


class Stage(ABC):
    """One step of every sample; built from a config, where it runs."""

    networks = True
    """Whether it is worth a GPU."""

    def __init__(self, config: PrepareConfig) -> None:
        self.config = config
        self.device = config.device
        if self.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if config.threads is not None:
            torch.set_num_threads(config.threads)

    def __call__(self, work: Work) -> Work:
        """The work with this step done for all its drafts."""
        return self.done(work) if work.drafts else work

    @abstractmethod
    def done(self, work: Work) -> Work:
        """The same where there is at least one draft."""


class Load(Stage):
    """Read, decode, crop: the picture and the layers that the source gives."""

    networks = False

    def __init__(self, config: PrepareConfig, source: Source | None = None) -> None:
        super().__init__(config)
        self.source = source or open_source(config)

    def __call__(self, work: Work) -> Work:
        return self.gathered(work, [self.one(item) for item in work.ids])

    def done(self, work: Work) -> Work:
        return self(work)

    @staticmethod
    def gathered(work: Work, found: Sequence[Draft | Skip]) -> Work:
        """The work with what `one` gave for each of its ids, in their order."""
        drafts = tuple(one for one in found if isinstance(one, Draft))
        return replace(work, drafts=drafts, skipped=tuple(one for one in found if isinstance(one, Skip)))

    def one(self, item: str) -> Draft | Skip:
        """One item, or why it is left out: whatever it does, the others are not to suffer."""
        if (name := printable(item)) != item:
            return Skip(name, "name unreadable", "its bytes are no UTF-8: rename it")
        try:
            return self._drafted(item)
        except BrokenItem as error:
            return Skip(item, error.reason, printable(error.detail[:500]))
        except Exception as error:
            return Skip(item, "unreadable", printable(f"{type(error).__name__}: {error}"[:500]))

    def _drafted(self, item: str) -> Draft:
        raw, size = self.source.read(item), self.config.size
        picture = decode(raw.picture)
        if min(picture.size) < self.config.smallest_side:
            raise BrokenItem("too small", f"{picture.width} x {picture.height}")
        square = choose_square(picture, size, _rng(self.config, item) if self.config.crop == "random" else None)
        arrays = {"source": square.fit(picture, Image.Resampling.BICUBIC)}
        for name in self._wanted():
            if name not in raw.given:
                raise BrokenItem(f"no {name} given", f"the source has no {name} for it")
            if name in _PLANES:
                layer = decode_plane(raw.given[name], what=name)
                resample = Image.Resampling.NEAREST if name == "mask" else Image.Resampling.BILINEAR
            else:
                layer, resample = decode(raw.given[name], what=name), Image.Resampling.BICUBIC
            check_aspect(layer, picture, name)
            arrays[name] = square.fit(layer, resample)
        if "mask" in arrays:
            arrays["mask"] = _object(arrays["mask"] > 0.5)
        return Draft(item, raw.captions or ("",), arrays)

    def _wanted(self) -> tuple[str, ...]:
        """The layers that are taken from the source."""
        config = self.config
        depths = ("fg_depth", "bg_depth") + (("source_depth",) if config.source_depth else ())
        return (
            *(("mask",) if config.mask == GIVEN else ()),
            *(("background",) if config.inpainter == GIVEN else ()),
            *(depths if config.depth == GIVEN and config.condition == "depth" else ()),
        )


class Mask(Stage):
    """M: given, or salience above a threshold. Leaves out pictures without an object, or without the rest."""

    def __init__(self, config: PrepareConfig) -> None:
        super().__init__(config)
        self.estimator: MapEstimator | None = None
        if config.mask != GIVEN:
            self.estimator = load_saliency(config.mask, config.models, device=self.device)

    def done(self, work: Work) -> Work:
        if self.estimator is not None:
            salience = estimate(
                self.estimator,
                work.stacked("source").to(self.device),
                preprocessing=self.config.preprocessing,
            ).cpu()
            found = [_object(one > self.config.mask_threshold) for one in salience.numpy()]
            work = replace(work, drafts=tuple(d.having(mask=m) for d, m in zip(work.drafts, found, strict=True)))
        shares = [float((draft.arrays["mask"] > 0).mean()) for draft in work.drafts]
        work = work.keeping([share > self.config.min_object for share in shares], "no object")
        dilation = self.config.dilation if self.config.inpainter != GIVEN else 0
        holes = [dilate(torch.from_numpy(draft.arrays["mask"])[None] / 255, dilation) for draft in work.drafts]
        return work.keeping([bool((hole == 0).any()) for hole in holes], "no background left")


class Split(Stage):
    """I_b, the picture without its object: given, or inpainted. (I_f needs no room: it is I_s * M.)"""

    def __init__(self, config: PrepareConfig) -> None:
        super().__init__(config)
        self.inpainter: Inpainter | DiffusionInpainter | None = None
        if is_diffusion(config.inpainter):
            self.inpainter = load_diffusion_inpainter(
                config.inpainter,
                self.device,
                _DTYPES[config.precision],
                prompt=config.inpaint_prompt,
                negative_prompt=config.inpaint_negative,
                steps=config.inpaint_steps,
                cfg=config.inpaint_cfg,
            )
        elif config.inpainter != GIVEN:
            self.inpainter = load_inpainter(config.inpainter, config.models, device=self.device)

    def done(self, work: Work) -> Work:
        if self.inpainter is None:
            return work
        inpainter, dilation = self.inpainter, self.config.dilation
        if isinstance(inpainter, DiffusionInpainter):
            draws = (_rng(self.config, f"{draft.id} inpainted") for draft in work.drafts)
            inpainter = inpainter.seeded([int(draw.integers(2**63)) for draw in draws])
        triplet = make_triplet(
            work.stacked("source").to(self.device),
            work.stacked("mask").to(self.device),
            lambda image, mask: inpaint(inpainter, image, mask, dilation=dilation),
        )
        return work.having(background=triplet.background.cpu())


class Depth(Stage):
    """The local fuser's two maps: depth of I_f and of I_b, given or estimated, or their edges."""

    def __init__(self, config: PrepareConfig) -> None:
        super().__init__(config)
        self.estimator: MapEstimator | None = None
        if config.condition == "depth" and config.depth != GIVEN:
            self.estimator = load_depth(config.depth, config.models, device=self.device)

    def done(self, work: Work) -> Work:
        if self.config.condition == "canny":
            triplet = _triplet(work)
            return work.having(fg_depth=_edges(triplet.foreground), bg_depth=_edges(triplet.background))
        if self.estimator is None:
            return work
        source, background, mask = (work.stacked(n).to(self.device) for n in ("source", "background", "mask"))
        estimated = partial(depth_map, self.estimator, preprocessing=self.config.preprocessing)
        maps = {
            "fg_depth": estimated(source, version=self.config.fg_version, mask=mask),
            "bg_depth": estimated(background),
        }
        if self.config.source_depth:
            maps["source_depth"] = estimated(source)
        return work.having(**{name: value.float().cpu() for name, value in maps.items()})


class Embed(Stage):
    """image_embeds of I_s and I_b."""

    def __init__(self, config: PrepareConfig) -> None:
        super().__init__(config)
        self.encoder = PictureEncoder(config.image_encoder, self.device, _DTYPES[config.precision])

    def done(self, work: Work) -> Work:
        source, background = (self.encoder(work.stacked(name).movedim(-1, 1)) for name in ("source", "background"))
        return work.having(source_embed=source, background_embed=background)


class Encode(Stage):
    """Latents of I_s, and the states of its captions."""

    def __init__(self, config: PrepareConfig) -> None:
        super().__init__(config)
        dtype = _DTYPES[config.precision]
        self.latents = LatentEncoder(config.autoencoder, self.device, dtype)
        self.text = CaptionEncoder(config.text_encoder, self.device, dtype) if config.text_encoder != NO_TEXT else None

    def done(self, work: Work) -> Work:
        mean, deviation = self.latents(work.stacked("source").movedim(-1, 1))
        work = work.having(latents=mean)
        if self.config.deviation:
            work = work.having(latent_deviation=deviation)
        if self.text is None:
            return work
        kept = [draft.captions[: self.config.max_captions] for draft in work.drafts]
        states = self.text([caption for captions in kept for caption in captions])
        rows, first = torch.zeros(len(kept), self.config.max_captions, *states.shape[1:]), 0
        for row, captions in zip(rows, kept, strict=True):
            row[: len(captions)] = states[first : first + len(captions)]
            first += len(captions)
        return work.having(text=rows)


class Pack(Stage):
    """From drafts to samples: numbers as they are stored, pictures as PNG."""

    networks = False

    def done(self, work: Work) -> Work:
        return self.gathered(work, [self.one(draft) for draft in work.drafts])

    @staticmethod
    def gathered(work: Work, packed: Sequence[Sample | Skip]) -> Work:
        """The work with what `one` gave for each of its drafts."""
        samples = tuple(one for one in packed if isinstance(one, Sample))
        skipped = tuple(one for one in packed if isinstance(one, Skip))
        return replace(work, drafts=(), samples=samples, skipped=work.skipped + skipped)

    def one(self, draft: Draft) -> Sample | Skip:
        """One draft as it is stored, or why it is left out."""
        pictures = {name: _bytes(draft.arrays[name]) for name in ("source", "background")}
        mask = draft.arrays["mask"]
        arrays = {"mask": mask}
        for name, value in draft.arrays.items():
            if name in _PLANES[1:]:
                arrays[name] = np.rint(value.astype(np.float64).clip(0, 1) * DEPTH_MAX).astype(np.uint16)
            elif name in ("latents", "latent_deviation", "text"):
                arrays[name] = value.astype(np.float16)
            elif name.endswith("_embed"):
                arrays[name] = value.astype(np.float32)
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return Skip(draft.id, "values not finite", f"{name} has values that are no numbers of {array.dtype}")
        arrays["caption_count"] = np.array(min(len(draft.captions), self.config.max_captions), np.uint8)
        files = {}
        if self.config.pictures:
            pictures["foreground"] = pictures["source"] * (mask[..., None] > 0)
            planes = {name: arrays[name] for name in _PLANES if name in arrays}
            files = {f"{name}.png": encode_png(pixels) for name, pixels in {**pictures, **planes}.items()}
        return Sample(draft.id, draft.captions, arrays, files)


STAGES: tuple[type[Stage], ...] = (Load, Mask, Split, Depth, Embed, Encode, Pack)
"""In order."""


def _rng(config: PrepareConfig, item: str) -> np.random.Generator:
    """What is drawn for an item follows from the seed and its id alone."""
    digest = hashlib.sha256(item.encode()).digest()
    return np.random.default_rng([config.seed, *np.frombuffer(digest, np.uint32).tolist()])


def _object(inside: np.ndarray) -> np.ndarray:
    return inside.astype(np.uint8) * np.uint8(MASK_MAX)


def _bytes(picture: np.ndarray) -> np.ndarray:
    """A picture of bytes, or of floats in [0, 1], as bytes."""
    return picture if picture.dtype == np.uint8 else np.rint(picture.clip(0, 1) * 255).astype(np.uint8)


def _triplet(work: Work) -> Triplet:
    source, background, mask = (work.stacked(name) for name in ("source", "background", "mask"))
    return Triplet(source, cut_out(source, mask), background, mask)


def _edges(pictures: Tensor) -> Tensor:
    """Canny's edges of (B, H, W, 3), 0 or 1, with the thresholds that the canny ControlNet made customary."""
    edges = [cv2.Canny(cv2.cvtColor(_bytes(one), cv2.COLOR_RGB2GRAY), *_CANNY) for one in pictures.numpy()]
    return torch.from_numpy(np.stack(edges)).float() / 255
