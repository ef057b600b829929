"""Captions as the host's SD 1 tokenizer would tokenise them, from a table of the words that occur.

The table (`words.json`) is made from a CLIP vocabulary and its merges:
`python -m training.mini.words FOLDER` with the folder that holds vocab.json and merges.txt.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .world import vocabulary

START, END = 49406, 49407  # the end token is the padding as well
LENGTH = 77
VOCABULARY = 49408
TABLE = Path(__file__).with_name("words.json")


@cache
def table() -> dict[str, list[int]]:
    """Token ids of each word that a caption can hold."""
    words: dict[str, list[int]] = json.loads(TABLE.read_text())
    return words


@cache
def used_ids() -> tuple[int, ...]:
    """The ids that captions use, sorted: the rows that the text encoder's file stores."""
    return tuple(sorted({START, END, *(i for ids in table().values() for i in ids)}))


def tokenize(caption: str) -> list[int]:
    """A caption as LENGTH token ids: start, words, end, padding. Raises KeyError for a word not in the table."""
    ids = [START, *(i for word in caption.split() for i in table()[word])][: LENGTH - 1]
    return ids + [END] * (LENGTH - len(ids))


def word_count(caption: str) -> int:
    """How many tokens a caption has without start, end and padding."""
    return sum(len(table()[word]) for word in caption.split())


def rows(captions: list[str]) -> Tensor:
    """Captions as positions in `used_ids`, (B, LENGTH)."""
    places = _places()
    start, end = places[START], places[END]
    filled = np.full((len(captions), LENGTH), end)
    for row, caption in zip(filled, captions, strict=True):
        words = [place for word in caption.split() for place in _word_places()[word]][: LENGTH - 2]
        row[0], row[1 : 1 + len(words)] = start, words
    return torch.from_numpy(filled)


@cache
def _places() -> dict[int, int]:
    return {token: place for place, token in enumerate(used_ids())}


@cache
def _word_places() -> dict[str, list[int]]:
    return {word: [_places()[token] for token in ids] for word, ids in table().items()}


def split_word(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one lower-case ASCII word, its end marked as CLIP does."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, sys.maxsize))
        if best not in ranks:
            break
        k = pairs.index(best)
        parts[k : k + 2] = ["".join(best)]
    return parts


def make_table(folder: Path) -> dict[str, list[int]]:
    """The table of all words of the world, from a tokenizer's vocab.json and merges.txt."""
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if not line.startswith("#version") and line.strip()]
    ranks = {(merge[0], merge[1]): k for k, merge in enumerate(merges)}
    return {word: [ids[part] for part in split_word(word, ranks)] for word in vocabulary()}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(make_table(Path(sys.argv[1])), indent=0) + "\n")
    print(f"{len(table())} words, {len(used_ids())} tokens")
