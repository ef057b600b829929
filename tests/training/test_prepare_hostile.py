"""Whatever one item does, it alone is left out, with its reason; and what a folder holds besides is said."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.prepare import PrepareConfig, prepare
from training.prepare.pictures import decode
from training.prepare.sources import BrokenItem, FolderSource, SourceError
from training.prepared import Manifest


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two sound pictures of noise."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(2):
        save(folder / f"{number}.jpg", number)
    return folder


@pytest.fixture(autouse=True)
def no_endless_wait() -> Iterator[None]:
    """What hangs fails."""
    if not hasattr(signal, "alarm"):
        yield
        return
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(90)
    yield
    signal.alarm(0)


def save(path: Path, seed: int, side: int = 80, **options: object) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def made(folder: Path, **changes: object) -> tuple[Manifest, list[str]]:
    fields = {"size": 64, "mask": "mini", "text_encoder": "none", "depth": "mask-and-ground-plane", "threads": 1}
    said: list[str] = []
    out = folder.with_name("set")
    config = PrepareConfig(out, "folder", data=folder, **{**fields, **changes})  # type: ignore[arg-type]
    return prepare(config, say=said.append), said


def left_out(manifest: Manifest) -> dict[str, str]:
    return {skip.id: skip.reason for shard in manifest.shards for skip in shard.skipped}


def test_any_damaged_byte_of_exif_breaks_its_picture_at_most(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    tags = picture.getexif()
    tags[0x0112], tags[0x010F], tags[0x011A] = 6, "a camera", 72.0
    good = save(tmp_path / "good.jpg", 5, exif=tags.tobytes()).read_bytes()
    start = good.index(b"Exif")
    broken = 0
    for place in range(start + 6, start + 80):
        for value in range(256):
            try:
                decode(good[:place] + bytes([value]) + good[place + 1 :])
            except BrokenItem:
                broken += 1
    assert broken, "none of them was damage"


@pytest.mark.parametrize("error", [TypeError, MemoryError, KeyError, RecursionError])
def test_whatever_reading_one_item_raises_it_is_left_out(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    read = FolderSource.read

    def reading(self: FolderSource, item: str) -> object:
        if item == "0.jpg":
            raise error("planted")
        return read(self, item)

    monkeypatch.setattr(FolderSource, "read", reading)
    manifest, _ = made(photographs)
    assert left_out(manifest)["0.jpg"] == "unreadable" and manifest.complete


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
def test_captions_names_and_pipes_that_cannot_be_read_are_left_out(photographs: Path) -> None:
    (photographs / "0.txt").write_bytes(b"caf\xe9")
    os.mkfifo(photographs / "pipe.jpg")
    (photographs / "folder.jpg").mkdir()
    save(Path(os.fsdecode(os.fsencode(photographs) + b"/caf\xe9.png")), 9)
    manifest, _ = made(photographs)
    found = left_out(manifest)
    assert found["0.jpg"] == "broken caption" and found["pipe.jpg"] == "no file"
    assert found["caf\\udce9.png"] == "name unreadable"
    assert "folder.jpg" not in found and manifest.items == 4


def test_what_is_not_taken_is_said(photographs: Path) -> None:
    (photographs / "two.jpg").write_bytes((photographs / "1.jpg").read_bytes())
    (photographs / "moving.gif").write_bytes(b"GIF89a")
    save(photographs / ".hidden.jpg", 7)
    (photographs / ".thumbnails").mkdir()
    save(photographs / ".thumbnails" / "small.jpg", 7)
    elsewhere = photographs.with_name("elsewhere")
    elsewhere.mkdir()
    (photographs / "linked").symlink_to(elsewhere)
    source = FolderSource(photographs)
    assert source.ids() == ["0.jpg", "1.jpg", "two.jpg"]
    _, said = made(photographs)
    notes = "\n".join(said)
    assert "1 linked folder (" in notes and "linked) not entered" in notes
    assert "1 .gif; convert them to PNG or JPEG" in notes
    assert "1 picture (two.jpg = 1.jpg) with the content of another" in notes


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_said(photographs: Path) -> None:
    (photographs / "closed").mkdir(mode=0o000)
    assert "cannot be read" in "\n".join(FolderSource(photographs).notes())


def test_masks_within_the_pictures_folder_are_no_pictures_however_it_is_named(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = photographs / "masks"
    masks.mkdir()
    save(masks / "0.png", 3)
    monkeypatch.chdir(photographs)
    other = photographs.with_name("link")
    other.symlink_to(photographs)
    for data, named in ((photographs, Path("masks")), (Path(), masks), (other, masks), (Path("../photographs"), masks)):
        source = FolderSource(data, masks=named)
        assert source.ids() == ["0.jpg", "1.jpg"], (data, named)
        assert "mask" in source.read("0.jpg").given
    with pytest.raises(SourceError, match="are the same folder"):
        FolderSource(photographs, masks=Path())


def test_small_pictures_are_left_out_by_default(photographs: Path) -> None:
    save(photographs / "small.png", 4, side=31)
    save(photographs / "enough.png", 5, side=32)
    manifest, _ = made(photographs)
    assert left_out(manifest)["small.png"] == "too small" and "enough.png" not in {
        name for name, reason in left_out(manifest).items() if reason == "too small"
    }
    assert manifest.options["min_side"] == 32


def test_work_says_so_from_its_first_batch_and_warns_of_networks_that_know_no_photographs(photographs: Path) -> None:
    _, said = made(photographs, batch_size=1, min_object=0.0)
    first = next(place for place, line in enumerate(said) if line.startswith("1/2 items"))
    assert first < next(place for place, line in enumerate(said) if line.startswith("shard 000000"))
    assert any(line.startswith("warning: autoencoder, image_encoder, mask: mini knows") for line in said)


def test_scenes_are_what_the_minis_networks_know(tmp_path: Path) -> None:
    said: list[str] = []
    config = PrepareConfig(
        tmp_path / "set", "scenes", scenes=2, size=64, inpainter="given", depth="given", text_encoder="none"
    )
    prepare(config, say=said.append)
    assert not any("warning" in line for line in said)
