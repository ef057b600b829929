"""A model's folder from the hub: a server of the test's own answers as huggingface.co does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from cnc_core.perception.fetch import FetchError, fetch
from cnc_core.perception.weights import Hub, Weights

from .fetch_site import Site, files, sha256

REVISION = "0123456789abcdef0123456789abcdef01234567"
LIST = "/api/models/someone/some-model/revision/main?blobs=true"
TENSORS = save({"a": torch.zeros(500_000)})
INSIDE = {
    "config.json": b'{"model_type": "depth"}',
    "preprocessor_config.json": b"{}",
    "model.safetensors": TENSORS,
    "pytorch_model.bin": b"what nobody asked for",
    "more/other.safetensors": TENSORS,
}
WEIGHTS = Weights(
    "depth", "depth", "depth_estimation", "some-model", "MIT", Hub("someone/some-model"), parameters=500_000
)
FOLDER = "depth_estimation/some-model"


def hub(site: Site, **changed: Any) -> dict[str, Any]:
    """Let the site have the model; return the list of its files, with some fields of the weights' changed."""
    siblings = []
    for name, content in INSIDE.items():
        site.files[f"/someone/some-model/resolve/{REVISION}/{name}"] = content
        lfs = {"lfs": {"sha256": sha256(content), "size": len(content)}} if name.endswith(".safetensors") else {}
        siblings.append({"rfilename": name, "size": len(content), "blobId": "0" * 40, **lfs})
    siblings[2].update(changed)
    told = {"id": "someone/some-model", "sha": REVISION, "siblings": siblings}
    site.files[LIST] = json.dumps(told).encode()
    return told


def place(name: str) -> str:
    return f"/someone/some-model/resolve/{REVISION}/{name}"


def test_a_folder_comes_with_what_is_read_of_it(site: Site, models: Path) -> None:
    hub(site)
    fetch(WEIGHTS, models, mirror=site.address)
    names = ("config.json", "preprocessor_config.json", "model.safetensors")
    assert files(models) == {f"{FOLDER}/{name}": INSIDE[name] for name in names}
    fetch(WEIGHTS, models, mirror=site.address)
    assert len(site.ranges) == 4, "what is there is not fetched again"


def test_the_hubs_own_setting_is_used(site: Site, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(site)
    monkeypatch.setenv("HF_ENDPOINT", site.address)
    assert (fetch(WEIGHTS, models) / "model.safetensors").read_bytes() == TENSORS


def test_a_broken_download_is_gone_on_with(site: Site, models: Path) -> None:
    hub(site)
    site.breaks_after = 1_000_000
    with pytest.raises(FetchError, match="broke off"):
        fetch(WEIGHTS, models, mirror=site.address)
    assert files(models)[f"{FOLDER}.part/model.safetensors.part"] == TENSORS[:1_000_000]
    site.breaks_after = None
    assert (fetch(WEIGHTS, models, mirror=site.address) / "model.safetensors").read_bytes() == TENSORS
    assert [asked for asked in site.ranges if asked] == ["bytes=1000000-"]
    assert not [name for name in files(models) if "part" in name]


@pytest.mark.parametrize(
    "content",
    [TENSORS[:-1], TENSORS[:-1] + b"x", b"<html>" + bytes(len(TENSORS) - 6), b"", TENSORS + b"x"],
    ids=["cut", "flipped", "page", "empty", "longer"],
)
def test_weights_that_are_not_the_listed_ones_get_no_name(site: Site, models: Path, content: bytes) -> None:
    hub(site)
    site.files[place("model.safetensors")] = content
    with pytest.raises(FetchError, match=r"is not that|at most"):
        fetch(WEIGHTS, models, mirror=site.address)
    assert not (models / FOLDER).exists()
    assert not [name for name in files(models) if "safetensors" in name]
    hub(site)
    assert (fetch(WEIGHTS, models, mirror=site.address) / "model.safetensors").read_bytes() == TENSORS


def test_a_page_in_place_of_a_config_gets_no_name(site: Site, models: Path) -> None:
    hub(site)
    site.files[place("config.json")] = b"<html>log in</html>".ljust(len(INSIDE["config.json"]))
    with pytest.raises(FetchError, match=r"config.json of https://huggingface.co/someone/some-model is not that"):
        fetch(WEIGHTS, models, mirror=site.address)
    assert not (models / FOLDER).exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"size": "2000000"}, {"size": -1}, {"size": None}, {"size": 10**15}, {"size": 900_000}, {"size": True},
        {"rfilename": None}, {"rfilename": "../model.safetensors"}, {"lfs": 7}, {"lfs": {"sha256": 7}},
        {"lfs": {"sha256": "short"}},
    ],
)  # fmt: skip
def test_a_list_with_a_wrong_entry_is_told(site: Site, models: Path, changed: dict[str, Any]) -> None:
    hub(site, **changed)
    with pytest.raises(FetchError, match="does not list the files of a model as the hub does"):
        fetch(WEIGHTS, models, mirror=site.address)
    assert not list((models / "depth_estimation").iterdir())


@pytest.mark.parametrize(
    "told",
    [
        b"", b"<html>", b"null", b"[]", b"7", b"{}", b"\xff", b"[" * 100_000, b'{"sha": "main", "siblings": []}',
        b'{"sha": 7, "siblings": []}', b'{"sha": null, "siblings": {}}', b'{"sha": "a", "siblings": [1]}',
        b'{"sha": "../../../../etc", "siblings": []}', bytes(5 << 20),
    ],
    ids=lambda told: str(told[:40]),
)  # fmt: skip
def test_what_is_no_list_is_told(site: Site, models: Path, told: bytes) -> None:
    site.files[LIST] = told
    with pytest.raises(FetchError, match=r"does not list the files of a model|at most"):
        fetch(WEIGHTS, models, mirror=site.address)
    assert not list((models / "depth_estimation").iterdir())


def test_the_hub_out_of_reach_leaves_nothing(site: Site, models: Path) -> None:
    with pytest.raises(FetchError, match="cannot be had: 404"):
        fetch(WEIGHTS, models, mirror=site.address)
    assert not list((models / "depth_estimation").iterdir())


def test_a_folder_without_its_weights_is_told(site: Site, models: Path) -> None:
    hub(site)
    (fetch(WEIGHTS, models, mirror=site.address) / "model.safetensors").unlink()
    with pytest.raises(FetchError, match=r"is there and is not depth: move it away.*0 bytes; expected at least"):
        fetch(WEIGHTS, models, mirror=site.address)
