"""Batches of a prepared set, read and drawn one ahead by a thread while the device works on the last."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ..prepared import PreparedError, PreparedSet, to_float
from .config import TrainConfig
from .draws import Draws, draw, draw_fixed
from .networks import Conditions
from .order import Drawn

Encode = Callable[[list[str]], Tensor]
"""Captions to the text encoder's states, (B, 77, C)."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples as they are stored, and what is drawn for them; on a device after `moved`, and then in floats."""

    arrays: dict[str, Tensor]
    draws: Draws
    captions: list[str]

    def latents(self) -> Tensor:
        """(B, 4, h, w) in fp32: the posterior's mean, or a draw from it where the set has its deviation."""
        mean = self.arrays["latents"]
        if self.draws.deviation is None:
            return mean
        return mean + self.arrays["latent_deviation"] * self.draws.deviation

    def moved(self, device: torch.device) -> Batch:
        """The batch on a device, converted to floats there: what travels is the small form."""

        def to(tensor: Tensor) -> Tensor:
            if device.type == "cuda":
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=True)

        arrays = to_float({name: to(array) for name, array in self.arrays.items()})
        tensors = {name: to(value) for name, value in vars(self.draws).items() if isinstance(value, Tensor)}
        draws = Draws(**{**vars(self.draws), **tensors})
        return Batch(arrays, draws, self.captions)


class Loader:
    """Reads what a stage needs of a prepared set.

    encode: for a set without the states of its captions. empty: (77, C), the states of the empty text. Raises
    PreparedError for a set that lacks what the config asks for.
    """

    def __init__(
        self, data: PreparedSet, config: TrainConfig, *, empty: Tensor, encode: Encode | None, dropout_width: int
    ) -> None:
        self._data, self._config, self._dropout_width = data, config, dropout_width
        self._empty, self._encode = empty, encode
        arrays = data.manifest.arrays
        self._maps = ("source_depth",) if config.streams == "source" else ("fg_depth", "bg_depth")
        self._names = ["latents", *(self._maps if config.stage != "global" else ())]
        if config.stage != "local":
            self._names += ["source_embed", "background_embed", "mask"]
        self._deviation = "latent_deviation" in arrays
        if self._deviation:
            self._names.append("latent_deviation")
        if "text" in arrays:
            self._names.append("text")
        if missing := [name for name in self._names if name not in arrays]:
            raise PreparedError(f"{data.name} has no {', '.join(missing)}; prepare a set with it")
        self._has_text = "text" in arrays
        if not self._has_text and encode is None:
            raise PreparedError(f"{data.name} has no text states: training needs a text encoder (text_encoder)")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(4, h, w)."""
        return self._data.manifest.arrays["latents"].shape

    def training(self, turns: Sequence[Drawn]) -> Batch:
        """The samples of these turns, with what training draws for them."""
        indices = [turn.sample for turn in turns]
        counts = self._caption_counts(indices)
        shape = self.latent_shape
        draws = draw(self._config, turns, counts, shape, deviation=self._deviation, dropout=self._dropout_width)
        return self._read(indices, draws)

    def fixed(self, indices: Sequence[int], places: Sequence[int], of: int) -> Batch:
        """Samples with the draws of validation."""
        return self._read(indices, draw_fixed(self._config, indices, places, of, self.latent_shape))

    def ahead(self, batches: Iterable[Sequence[Drawn]]) -> Generator[Batch, None, None]:
        """The training batches of these turns, each read while the one before is worked on."""
        turns = iter(batches)
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
            waiting = None
            for next_turns in turns:
                following = pool.submit(self.training, next_turns)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def conditions(self, batch: Batch) -> Conditions:
        """What a moved batch is steered by, with zeros (of text: the empty text) for what was dropped."""
        text_kept, *kept = (column.unsqueeze(-1) for column in batch.draws.kept.unbind(1))
        mean = batch.arrays["latents"]
        text = batch.arrays["text"] if self._has_text else self._encoded(batch.captions).to(mean)
        text = torch.where(text_kept.unsqueeze(-1), text, self._empty.to(text))
        arrays = batch.arrays
        nothing = mean.new_zeros(len(mean), 1, 1)
        maps = [arrays.get(name, nothing) for name in (self._maps * 2)[:2]]
        fg_depth, bg_depth = (m * k.unsqueeze(-1) for m, k in zip(maps, kept[:2], strict=True))
        embeds = [arrays.get(name, nothing[:, 0]) for name in ("source_embed", "background_embed")]
        fg_embed, bg_embed = (embed * k for embed, k in zip(embeds, kept[2:], strict=True))
        mask = arrays.get("mask", nothing)
        return Conditions(text, fg_depth, bg_depth, fg_embed, bg_embed, mask)

    def unconditional(self, conditions: Conditions) -> Conditions:
        """The other half of classifier-free guidance: as in the release, only the text is left out."""
        empty = self._empty.to(conditions.text).expand_as(conditions.text)
        return Conditions(**{**vars(conditions), "text": empty})

    def read(self, indices: Sequence[int], captions: Sequence[int] | None = None) -> dict[str, Tensor]:
        """The stage's arrays of these samples as they are stored, with the states of these captions, else the first."""
        chosen = [0] * len(indices) if captions is None else captions
        return self._data.batch(indices, raw=True, names=self._names, captions=chosen)

    def _read(self, indices: Sequence[int], draws: Draws) -> Batch:
        arrays = self.read(indices, draws.captions)
        captions = (
            [] if self._has_text else [self._data.captions(i)[c] for i, c in zip(indices, draws.captions, strict=True)]
        )
        return Batch(arrays, draws, captions)

    def _caption_counts(self, indices: Sequence[int]) -> list[int]:
        if not self._has_text:
            return [len(self._data.captions(index)) for index in indices]
        return self._data.batch(indices, raw=True, names=("caption_count",))["caption_count"].tolist()

    def _encoded(self, captions: list[str]) -> Tensor:
        if self._encode is None:
            raise PreparedError("there is no text encoder")
        return self._encode(captions)
