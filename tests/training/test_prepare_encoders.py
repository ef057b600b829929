"""Encoders in the real formats of diffusers, transformers and SD's single files, small and with made-up weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from devtools.launch import complete_torchvision
from training.mini.words import used_ids
from training.prepare import EncoderError, PrepareConfig, prepare
from training.prepare.encoders import CaptionEncoder, LatentEncoder, PictureEncoder, encoder_path, model_facts
from training.prepared import PreparedSet


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    pytest.importorskip("diffusers")
    complete_torchvision()


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of diffusers: vae, text_encoder, tokenizer."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("sd")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64), layers_per_block=2, latent_channels=4, scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")  # fmt: skip
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz:,", *(f"{c}</w>" for c in "adegou:,")]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14,
        projection_dim=24,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def test_latents_are_the_posteriors_mean_in_the_unets_scale(diffusion: Path) -> None:
    from diffusers import AutoencoderKL

    mean, deviation = LatentEncoder(str(diffusion), "cpu", torch.float32)(pictures())
    with torch.no_grad():
        posterior = AutoencoderKL.from_pretrained(diffusion / "vae").encode(pictures() * 2 - 1).latent_dist
    torch.testing.assert_close(mean, posterior.mean * 0.18215, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(deviation, posterior.std * 0.18215, atol=1e-5, rtol=1e-5)
    assert mean.shape == (2, 4, 8, 8)


def single_file(vae: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An autoencoder's weights under the names of SD's own checkpoints, which the release uses too."""
    named = {}
    for name, value in vae.items():
        side, _, rest = name.partition(".")
        for new, old in (
            ("norm_out", "conv_norm_out"), ("nin_shortcut", "conv_shortcut"),
            ("mid.block_1", "mid_block.resnets.0"), ("mid.block_2", "mid_block.resnets.1"),
            ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"), ("mid.attn_1.q", "mid_block.attentions.0.to_q"),
            ("mid.attn_1.k", "mid_block.attentions.0.to_k"), ("mid.attn_1.v", "mid_block.attentions.0.to_v"),
            ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
        ):  # fmt: skip
            rest = rest.replace(old, new)
        for level in range(4):
            up = 3 - level  # SD numbers the decoder's levels from the picture's side
            rest = rest.replace(f"down_blocks.{level}.resnets", f"down.{level}.block")
            rest = rest.replace(f"down_blocks.{level}.downsamplers.0", f"down.{level}.downsample")
            rest = rest.replace(f"up_blocks.{level}.resnets", f"up.{up}.block")
            rest = rest.replace(f"up_blocks.{level}.upsamplers.0", f"up.{up}.upsample")
        if "attn_1" in rest and value.ndim == 2:
            value = value[:, :, None, None]  # a convolution there
        named[f"first_stage_model.{side}.{rest}"] = value.contiguous()
    return named


def test_an_sd_checkpoints_autoencoder_is_the_same(diffusion: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    state = single_file(AutoencoderKL.from_pretrained(diffusion / "vae").state_dict())
    unet = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4, 4, 3, 3)}
    save_file({**state, **unet}, tmp_path / "sd.safetensors")
    found = LatentEncoder(str(tmp_path / "sd.safetensors"), "cpu", torch.float32)(pictures())
    expected = LatentEncoder(str(diffusion), "cpu", torch.float32)(pictures())
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    save_file(unet, tmp_path / "unet.safetensors")
    with pytest.raises(EncoderError, match=r"holds no autoencoder of Stable Diffusion 1\.5, among 1 tensors"):
        LatentEncoder(str(tmp_path / "unet.safetensors"), "cpu", torch.float32)


def test_captions_are_clips_last_states(diffusion: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    captions = ["a dog: good", "", "a" * 300]
    tokenizer = CLIPTokenizer.from_pretrained(diffusion / "tokenizer")
    ids = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = CLIPTextModel.from_pretrained(diffusion / "text_encoder")(ids).last_hidden_state
    found = CaptionEncoder(str(diffusion), "cpu", torch.float32)(captions)
    assert found.shape == (3, 77, 32)
    torch.testing.assert_close(found, expected)


def test_embeddings_are_clips_own_on_its_own_preprocessing(vision: Path) -> None:
    from transformers import CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    smooth = torch.nn.functional.interpolate(pictures(), (128, 128), mode="bicubic").clamp(0, 1)
    images = (smooth * 255).round() / 255
    arrays = [(one.permute(1, 2, 0).numpy() * 255).round().astype("uint8") for one in images]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    pixels = processor(arrays, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = CLIPVisionModelWithProjection.from_pretrained(vision)(pixel_values=pixels).image_embeds
    found = PictureEncoder(str(vision), "cpu", torch.float32)(images)
    assert found.shape == (2, 24)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)  # a level of 255 here and there


def test_a_set_of_real_formats_names_its_models(diffusion: Path, vision: Path, tmp_path: Path) -> None:
    config = PrepareConfig(
        tmp_path / "set", "scenes", scenes=2, size=64, inpainter="given", depth="given", autoencoder=str(diffusion),
        text_encoder=str(diffusion), image_encoder=str(vision), max_captions=2, deviation=True,
    )  # fmt: skip
    manifest = prepare(config, say=lambda _: None)
    sample = PreparedSet(tmp_path / "set")[0]
    assert sample["text"].shape == (2, 77, 32) and sample["source_embed"].shape == (24,)
    assert (sample["latent_deviation"] > 0).all()
    assert manifest.models["text_encoder"] == model_facts(str(diffusion), diffusion / "text_encoder")
    assert len({facts.get("sha256") for facts in manifest.models.values()}) >= 4
    without = prepare(replace(config, out=tmp_path / "none", text_encoder="none"), say=lambda _: None)
    assert "text" not in without.arrays and PreparedSet(tmp_path / "none").captions(0)


def test_the_hash_of_a_folder_follows_its_content(diffusion: Path, tmp_path: Path) -> None:
    before = model_facts("x", encoder_path(str(diffusion), "autoencoder"))
    (tmp_path / "vae").mkdir()
    for path in (diffusion / "vae").iterdir():
        (tmp_path / "vae" / path.name).write_bytes(path.read_bytes())
    assert model_facts("x", encoder_path(str(tmp_path), "autoencoder")) == before
    (tmp_path / "vae" / "config.json").write_text("{}")
    assert model_facts("x", encoder_path(str(tmp_path), "autoencoder")) != before


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(EncoderError, match="models are not fetched"):
        LatentEncoder("runwayml/stable-diffusion-v1-5", "cpu", torch.float32)


def test_the_minis_text_takes_any_caption() -> None:
    encoder = CaptionEncoder("mini", "cpu", torch.float32)
    states = encoder(["red cube in front of", "Red, photograph: \u5c71", "", "red " * 200])
    assert states.shape == (4, 77, 96) and torch.isfinite(states).all()
    assert not torch.equal(states[1], states[2]) and len(used_ids()) > 10
