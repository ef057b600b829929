"""I_b by Stable Diffusion's inpainting pipeline in diffusers' layout, small and with made-up weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnc_core.perception import dilate
from devtools.launch import complete_torchvision
from training.prepare import EncoderError, PrepareConfig, prepare
from training.prepare.stages import Load, Split, Work
from training.prepared import PreparedSet


def pipeline_folder(folder: Path, channels: int = 9) -> Path:
    pytest.importorskip("diffusers")
    complete_torchvision()
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz,", *(f"{c}</w>" for c in "deglnsy,")]
    told = folder / "told"
    told.mkdir(parents=True)
    (told / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (told / "merges.txt").write_text("#version: 0.2\n")
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    StableDiffusionInpaintPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(str(told / "vocab.json"), str(told / "merges.txt"), model_max_length=77),
        unet=UNet2DConditionModel(
            sample_size=8, in_channels=channels, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=8,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=32,
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "inpainting")  # fmt: skip
    return folder / "inpainting"


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline_folder(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, and a folder of their masks beside it."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    (folder.parent / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        mask = np.zeros((64, 64), dtype=np.uint8)
        mask[20:40, 10 * number + 8 : 10 * number + 24] = 255
        Image.fromarray(mask).save(folder.parent / "masks" / f"{number}.png")
    return folder


def config(pictures: Path, inpainting: Path, out: Path, **changes: object) -> PrepareConfig:
    standard = PrepareConfig(
        out, "folder", data=pictures, masks=pictures.parent / "masks", size=64, inpainter=str(inpainting),
        inpaint_steps=2, batch_size=3, threads=1, device="cpu",
    )  # fmt: skip
    return replace(standard, **changes)  # type: ignore[arg-type]


def split(told: PrepareConfig, ids: tuple[str, ...]) -> dict[str, np.ndarray]:
    work = Split(told)(Load(told)(Work(0, ids)))
    assert not work.skipped
    return {draft.id: draft.arrays for draft in work.drafts}


IDS = ("0.png", "1.png", "2.png")


def test_only_the_hole_is_filled_and_noise_follows_from_the_id(
    pictures: Path, inpainting: Path, tmp_path: Path
) -> None:
    told = config(pictures, inpainting, tmp_path)
    together = split(told, IDS)
    for name, arrays in together.items():
        hole = dilate(torch.from_numpy(arrays["mask"])[None] / 255, told.dilation)[0].numpy() > 0
        source, background = arrays["source"].astype(np.float32) / 255, arrays["background"]
        assert np.array_equal(background[~hole], source[~hole])
        assert np.abs(background[hole] - source[hole]).mean() > 0.05
        alone = split(told, (name,))[name]["background"]
        np.testing.assert_allclose(alone, background, atol=1e-5)
    other_seed = split(replace(told, seed=1), IDS)
    other_words = split(replace(told, inpaint_prompt="a green sea"), IDS)
    for other in (other_seed, other_words):
        assert np.abs(other["0.png"]["background"] - together["0.png"]["background"]).max() > 1e-3


def test_a_set_says_how_its_backgrounds_were_made(pictures: Path, inpainting: Path, tmp_path: Path) -> None:
    told = config(pictures, inpainting, tmp_path / "set")
    manifest = prepare(told, say=lambda _: None)
    assert len(PreparedSet(told.out)) == 3
    assert manifest.options["inpaint_steps"] == 2 and manifest.options["inpaint_cfg"] == 10.0
    assert manifest.options["inpaint_prompt"] == "empty scenery, highly detailed, no people"
    assert len(manifest.models["inpainter"]["sha256"]) == 64
    assert "inpaint_steps" not in replace(told, inpainter="telea").facts()


def test_another_pipeline_is_refused(pictures: Path, tmp_path: Path) -> None:
    plain = pipeline_folder(tmp_path / "plain", channels=4)
    with pytest.raises(EncoderError, match="takes 4 channels, 9 are expected"):
        Split(config(pictures, plain, tmp_path))
    (plain / "unet" / "config.json").unlink()
    with pytest.raises(EncoderError, match="cannot be loaded as a pipeline"):
        Split(config(pictures, plain, tmp_path))
