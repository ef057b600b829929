"""What training asks of a batch of scenes of one to four solids: depth, captions, words and exemplars by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnc_core import Guidance, Region
from cnc_core.depth_layers import TEXT_WEIGHT

from .dataset import Dataset
from .layered_data import LayeredGroup
from .loop import Draw
from .model import Conditions, Mini


@dataclass(frozen=True)
class LayeredDraws:
    """With which probability a sample has what."""

    caption_order: float = 0.35  # a caption that tells the solids and their order
    caption_neutral: float = 0.15  # one that tells the solids alone; what is left has one of the surroundings
    words: float = 0.6  # each layer its own words
    looks: float = 0.4  # each layer an exemplar
    drop_text: float = 0.15  # neither caption nor words
    drop_depth: float = 0.05  # each map
    drop_embed: float = 0.08  # each embedding
    fuser: float = 0.95  # with the local fuser


def exemplar_rows(data: Dataset, materials: Tensor, draw: Draw) -> Tensor:
    """For each material (B,) a random two-solid scene whose front solid has it, as a row of the dataset: (B,)."""
    front = data.scenes.attributes[:, 1]
    found = front[None] == materials[:, None]
    place = (draw.uniform(len(materials)) * found.sum(1)).long()
    return ((found.cumsum(1) - 1 == place[:, None]) & found).int().argmax(1)


def layered_conditions(
    model: Mini, data: Dataset, group: LayeredGroup, rows: Tensor, draws: LayeredDraws, draw: Draw, empty: Tensor
) -> tuple[Conditions, Guidance, Tensor]:
    """The conditions of rows of a group.

    Args:
        model: Its text encoder and global fuser make the tokens of words and exemplars.
        data: Two-solid scenes, which are the exemplars.
        group: Scenes of N solids.
        rows: B of them.
        draws: What is asked for how often.
        draw: The step's random numbers.
        empty: The empty caption, (1, 77).

    Returns:
        Captions and depth maps; the layers' words and exemplars; the local fuser's share of each sample, (B, 1, 1, 1).
    """
    count, solids = len(rows), group.visible.shape[1]

    def chance(share: float) -> Tensor:
        return draw.uniform(count) < share

    def picture(values: Tensor) -> Tensor:
        return values[:, None, None, None].float()

    captions, kind = group.captions[rows], draw.uniform(count)
    neutral = (kind >= draws.caption_order) & (kind < draws.caption_order + draws.caption_neutral)
    tokens = torch.where((kind < draws.caption_order)[:, None], captions[:, 0], captions[:, 2])
    tokens = torch.where(neutral[:, None], captions[:, 1], tokens)
    silent = chance(draws.drop_text)
    tokens = torch.where(silent[:, None], empty, tokens)
    fg_depth, bg_depth = (
        depth[rows].float() / 255 * picture(~chance(draws.drop_depth)) for depth in (group.fg_depth, group.bg_depth)
    )
    visible = group.visible[rows].float() / 255
    worded, looked = chance(draws.words) & ~silent, chance(draws.looks)
    regions = []
    for k in range(solids):
        shown = visible[:, k : k + 1]
        words, counts = model.text(group.words[rows, k]), group.word_counts[rows, k]
        for length in counts.unique().tolist():
            # A mask of zero is a region that is not there: in these samples alone the words are so long.
            acts = shown * picture(worded & (counts == length))
            regions.append(Region(words[:, 1 : 1 + length], acts, TEXT_WEIGHT, "gate"))
        embeds = data.source_embeds[exemplar_rows(data, group.materials[rows, k], draw)]
        embeds = embeds * ~chance(draws.drop_embed)[:, None]
        regions.append(Region(model.global_fuser(embeds, embeds)[0], shown * picture(looked)))
    embeds = group.backdrop_embeds[rows] * ~chance(draws.drop_embed)[:, None]
    left = (1 - visible.sum(1, keepdim=True)) * picture(looked)
    regions.append(Region(model.global_fuser(embeds, embeds)[1], left))
    conditions = Conditions(tokens, fg_depth, bg_depth)
    return conditions, Guidance(tuple(regions)), picture(chance(draws.fuser))
