"""The paper's metrics on folders of pictures: what is computed, and what is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from devtools.launch import complete_torchvision
from training.config import ConfigError
from training.evaluate import lpips_weights, pictures, tables
from training.evaluate.pictures import Pictures, read_captions
from training.evaluate.tables import TablesConfig, measure
from training.files import file_hash

complete_torchvision()  # beside a torch for processors alone its operators are missing, and torchmetrics imports it
CPU = torch.device("cpu")
Folders = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """A maker of folders: smooth pictures of a seed, with noise on them."""

    def make(name: str, count: int = 3, noise: float = 0.0, size: int = 64) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for k in range(count):
            rng = np.random.default_rng(k)
            small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            picture = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).astype(float)
            picture += noise * np.random.default_rng(100 + k).normal(size=picture.shape)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{k:03d}.png")
        return folder

    return make


def config(tmp_path: Path, images: Path, **fields: object) -> TablesConfig:
    return TablesConfig(images=(f"mine={images}",), out=tmp_path / "out", **fields)  # type: ignore[arg-type]


def test_ssim_is_scikit_images(folders: Folders) -> None:
    made, true = Pictures(folders("made", noise=20.0)), Pictures(folders("true"))
    for row in pictures.ssim(made, true):
        arrays = [folder.read(row["picture"]).permute(1, 2, 0).numpy() for folder in (made, true)]
        _, whole = structural_similarity(
            *arrays, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        # torchmetrics takes the border in, and mirrors it without the outermost pixel
        assert row["value"] == pytest.approx(float(whole.mean()), abs=0.002)
    assert all(row["value"] == pytest.approx(1.0) for row in pictures.ssim(true, true))


def test_a_folder_made_elsewhere_enters_the_same_table(folders: Folders, tmp_path: Path) -> None:
    true, near, far = folders("true"), folders("near", noise=8.0), folders("far", noise=40.0)
    plan = TablesConfig(
        images=(f"near={near}", str(far)), reference=true, metrics=("ssim", "depth"), out=tmp_path / "out"
    )
    found = measure(plan)["folders"]
    assert list(found) == ["near", "far"]
    assert found["near"]["ssim"]["mean"] > found["far"]["ssim"]["mean"]
    assert found["near"]["depth"]["mean"] < found["far"]["depth"]["mean"]
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "| near | 3 |" in table and "| far | 3 |" in table and "SSIM" in table


def test_a_changed_picture_is_measured_again_and_the_others_results_stay(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, made = folders("true"), folders("made", noise=8.0)
    plan = config(tmp_path, made, reference=true, metrics=("ssim",))
    first = measure(plan)
    real, calls = pictures.ssim, []
    monkeypatch.setattr(pictures, "ssim", lambda *both: calls.append(1) or real(*both))
    assert measure(plan) == first and not calls
    Image.new("RGB", (64, 64)).save(made / "001.png")
    assert measure(plan) != first and len(calls) == 1


@pytest.mark.parametrize("metric", ["fid", "is", "lpips"])
def test_missing_weights_are_named_with_where_they_belong(metric: str, folders: Folders, tmp_path: Path) -> None:
    made, empty = folders("made", count=10), tmp_path / "weights"
    empty.mkdir()
    plan = config(tmp_path, made, reference=made, metrics=(metric,), weights=empty)
    name = "alexnet-owt-7be5be79.pth" if metric == "lpips" else pictures.INCEPTION
    with pytest.raises(ConfigError, match=name):
        measure(plan)


@pytest.mark.parametrize("metric", ["fid", "lpips"])
def test_a_look_alike_of_the_weights_is_refused(metric: str, folders: Folders, tmp_path: Path) -> None:
    made = folders("made")
    for name in (pictures.INCEPTION, *lpips_weights.FILES["alex"]):
        torch.save({}, tmp_path / name)
    with pytest.raises(ConfigError, match="not the published file"):
        measure(config(tmp_path, made, reference=made, metrics=(metric,), weights=tmp_path))


def test_inputs_that_a_metric_needs_are_asked_for(folders: Folders, tmp_path: Path) -> None:
    made = folders("made")
    for metric, option in (("ssim", "--reference"), ("clip", "--captions"), ("regions", "--clip")):
        with pytest.raises(ConfigError, match=option):
            measure(config(tmp_path, made, metrics=(metric,)))
    captions = tmp_path / "captions.txt"
    captions.write_text("000:a picture\n001:another: with a colon\n")
    with pytest.raises(ConfigError, match="needs a CLIP model"):
        measure(config(tmp_path, made, metrics=("clip",), captions=captions, clip=tmp_path))
    assert read_captions(captions)["001"] == "another: with a colon"


def test_pairs_have_to_be_there_and_of_one_size(folders: Folders, tmp_path: Path) -> None:
    made, fewer, larger = folders("made"), folders("fewer", count=2), folders("larger", size=96)
    with pytest.raises(ConfigError, match="lacks 1 of 3 pictures, 002"):
        measure(config(tmp_path, made, reference=fewer, metrics=("ssim",)))
    with pytest.raises(ConfigError, match="64 x 64 and 96 x 96"):
        measure(config(tmp_path, made, reference=larger, metrics=("ssim",)))
    with pytest.raises(ConfigError, match="no pictures"):
        Pictures(tmp_path)
    (made / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(ConfigError, match="cannot be read"):
        Pictures(made).read("broken")


@pytest.fixture
def alexnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """AlexNet's layers, made up, in a file of either layout in tmp_path, whose hashes are taken for the right ones."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    state = {name: value for name, value in alexnet(weights=None).state_dict().items() if "features" in name}
    torch.save(state, tmp_path / "ours.pth")
    convolutions = {
        f"Conv_{k}": {
            "kernel": state[f"features.{layer}.weight"].permute(2, 3, 1, 0).numpy(),
            "bias": state[f"features.{layer}.bias"].numpy(),
        }
        for k, layer in enumerate((0, 3, 6, 8, 10))
    }
    (tmp_path / "ours.ckpt").write_bytes(pickle.dumps({"NetLinLayer_0": {}, "AlexNet_0": convolutions}))
    right = {f"ours.{end}": file_hash(tmp_path / f"ours.{end}") for end in ("pth", "ckpt")}
    monkeypatch.setitem(lpips_weights.FILES, "alex", right)
    return state


def test_both_layouts_of_the_backbone_are_read(alexnet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for _ in range(2):
        found = lpips_weights.backbone_weights(tmp_path, "alex")
        assert found.keys() == alexnet.keys()
        assert all(torch.equal(found[name], value) for name, value in alexnet.items())
        (tmp_path / "ours.pth").unlink(missing_ok=True)


def test_a_pickle_of_anything_but_arrays_is_not_run(alexnet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    (tmp_path / "ours.pth").unlink()
    (tmp_path / "ours.ckpt").write_bytes(pickle.dumps({"AlexNet_0": Path("/")}))
    lpips_weights.FILES["alex"]["ours.ckpt"] = file_hash(tmp_path / "ours.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="no place"):
        lpips_weights.backbone_weights(tmp_path, "alex")


def test_lpips_grows_with_the_difference(folders: Folders, tmp_path: Path, alexnet: dict[str, torch.Tensor]) -> None:
    true, near, far = (Pictures(folders(name, noise=noise)) for name, noise in (("a", 0.0), ("b", 8.0), ("c", 60.0)))
    same, little, much = (pictures.lpips(made, true, tmp_path, "alex", CPU) for made in (true, near, far))
    assert all(row["value"] == 0.0 for row in same)
    assert all(0 < one["value"] < two["value"] for one, two in zip(little, much, strict=True))


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inception's layers, made up, in torch-fidelity's layout."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    folder = tmp_path_factory.mktemp("inception")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)  # so that something comes out at the end
    plain = folder / "plain.pth"
    torch.save(network.state_dict(), plain)
    plain.rename(folder / f"inception-{hashlib.sha256(plain.read_bytes()).hexdigest()[:8]}.pth")
    return folder


@pytest.mark.slow
def test_fid_and_inception_score_run_on_inceptions_layout(
    folders: Folders, inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "INCEPTION", next(inception.iterdir()).name)
    true, near, far = (
        Pictures(folders(name, count=10, noise=noise)) for name, noise in (("a", 0.0), ("b", 10.0), ("c", 90.0))
    )
    same, little, much = (pictures.fid(made, true, inception, CPU)[0]["value"] for made in (true, near, far))
    assert abs(same) < 1e-3 < little < much
    score = pictures.inception_score(true, inception, CPU)
    assert score == pictures.inception_score(true, inception, CPU), "the shuffle is seeded"
    assert score[0]["value"] >= 1.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of the transformers library with made-up weights and a small vocabulary."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklm")]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPModel(
        CLIPConfig(
            text_config={**layers, "vocab_size": len(words), "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1},
            vision_config={**layers, "image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    )
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder


def test_clip_score_is_a_hundred_times_the_cosine_of_clip(folders: Folders, clip: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    made = Pictures(folders("made"))
    captions = {"000": "a b c", "001": "d e", "002": "f"}
    rows = pictures.clip_score(made, captions, clip, CPU)
    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    inputs = processor(
        text=list(captions.values()), images=[made.read(n) for n in captions], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        cosines = model(**inputs).logits_per_image.diagonal() / model.logit_scale.exp()
    assert [row["value"] for row in rows] == pytest.approx((100 * cosines).clamp(min=0).tolist(), abs=1e-3)
    with pytest.raises(ConfigError, match="no caption for 1 of 3 pictures, 002"):
        pictures.clip_score(made, {"000": "a", "001": "b"}, clip, CPU)


def test_a_picture_of_two_exemplars_is_near_each_in_its_region(folders: Folders, clip: Path, tmp_path: Path) -> None:
    fg, bg = Pictures(folders("fg", count=2)), Pictures(folders("bg", count=2, noise=60.0))
    for name in ("made", "masks"):
        (tmp_path / name).mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    for name in fg.files:
        both = np.where(mask[..., None] > 0, *(f.read(name).permute(1, 2, 0).numpy() for f in (fg, bg)))
        Image.fromarray(both).save(tmp_path / "made" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    made, masks = Pictures(tmp_path / "made"), Pictures(tmp_path / "masks")
    right = pictures.regional_cosine(made, masks, fg, bg, clip, CPU)
    swapped = pictures.regional_cosine(made, masks, bg, fg, clip, CPU)
    assert all(row["value"] == pytest.approx((row["fg"] + row["bg"]) / 2) for row in right)
    assert sum(row["value"] for row in right) != sum(row["value"] for row in swapped)


def test_two_folders_of_one_name_are_refused(folders: Folders, tmp_path: Path) -> None:
    one = folders("one")
    with pytest.raises(ConfigError, match="names two folders"):
        tables.folders(TablesConfig(images=(str(one), f"one={one}"), out=tmp_path))


def test_a_missing_package_is_named(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folders("made")
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ConfigError, match=r"needs torchmetrics.*extra `evaluation`"):
        measure(config(tmp_path, made, reference=made, metrics=("ssim",)))
