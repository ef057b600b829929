"""The table of words equals the host's tokenizer, where one is at hand."""

from pathlib import Path

import pytest
import torch

from training.mini.clip import TextEncoder, whole_vocabulary
from training.mini.words import END, LENGTH, START, VOCABULARY, make_table, rows, split_word, table, tokenize, used_ids
from training.mini.world import vocabulary

TOKENIZER = Path(__file__).parents[2] / ".host" / "ComfyUI" / "comfy" / "sd1_tokenizer"


def test_every_word_of_the_world_is_in_the_table() -> None:
    assert set(vocabulary()) == set(table())


@pytest.mark.skipif(not TOKENIZER.is_dir(), reason="no ComfyUI under .host")
def test_the_table_is_what_the_hosts_vocabulary_gives() -> None:
    assert make_table(TOKENIZER) == table()


@pytest.mark.skipif(not TOKENIZER.is_dir(), reason="no ComfyUI under .host")
def test_captions_tokenize_as_transformers_does() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(TOKENIZER))
    from training.mini.scenes import SEEDS, draw_scene

    for index in range(20):
        caption = draw_scene(SEEDS["train"], index).caption
        wanted = tokenizer(caption)["input_ids"]
        assert tokenize(caption)[: len(wanted)] == wanted


def test_captions_have_start_end_and_padding() -> None:
    ids = tokenize("red cube")
    assert len(ids) == LENGTH and ids[0] == START and set(ids[3:]) == {END}
    with pytest.raises(KeyError):
        tokenize("a unicorn")


def test_pairs_merge_by_rank() -> None:
    assert split_word("aab", {("a", "b</w>"): 0, ("a", "a"): 1}) == ["a", "ab</w>"]


def test_stored_rows_expand_to_the_whole_vocabulary() -> None:
    encoder = TextEncoder()
    stored = encoder.state_dict()["text_model.embeddings.token_embedding.weight"]
    whole = whole_vocabulary(stored, torch.tensor(used_ids()))
    assert whole.shape == (VOCABULARY, stored.shape[1])
    caption = rows(["red cube on sand"])
    assert torch.equal(whole[torch.tensor(tokenize("red cube on sand"))], stored[caption[0]])
