"""Every source: stable ids, the right picture, mask and captions for each, and clear refusals."""

import contextlib
import io
import json
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.prepare.pictures import decode, decode_plane
from training.prepare.sources import (
    BrokenItem,
    CocoSource,
    FolderSource,
    PickAPicSource,
    ReleaseSource,
    SceneSource,
    Source,
    SourceError,
    TarSource,
)
from training.prepare.sources.coco import THINGS

ODD = 'with: colon\tand tab, "quotes" and \u5c71\U0001f3d4'


def png(value: int, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(file, format="PNG")
    return file.getvalue()


def shade(source: Source, item: str) -> int:
    """The grey of an item's picture, by which made-up pictures are told apart."""
    return int(np.asarray(decode(source.read(item).picture))[0, 0, 0])


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_folder_with_masks_of_another_format_and_texts_beside(tmp_path: Path) -> None:
    put(tmp_path / "a" / "one.v2.png", png(1))
    put(tmp_path / "a" / "one.v2.txt", f"\ufefffirst\n\n {ODD} \n")
    put(tmp_path / "two.png", png(2))
    put(tmp_path / "notes.md", "no picture")
    put(tmp_path / "masks" / "a" / "one.v2.png", png(255, mode="L"))
    source = pickle.loads(pickle.dumps(FolderSource(tmp_path, masks=tmp_path / "masks")))  # noqa: S301
    assert source.ids() == ["a/one.v2.png", "two.png"]
    assert shade(source, "two.png") == 2
    raw = source.read("a/one.v2.png")
    assert raw.captions == ("first", ODD)
    assert np.asarray(decode_plane(raw.given["mask"], what="mask")).min() == 1
    assert source.read("two.png").captions == () and source.read("two.png").given == {}
    (tmp_path / "two.png").unlink()
    with pytest.raises(BrokenItem, match="No such file"):
        source.read("two.png")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_tables_keep_colons_tabs_line_ends_and_scripts(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "p" / "a.png", png(1))
    put(tmp_path / "p" / "b.png", png(2))
    caption = f"{ODD}\nsecond line\u2028still the same"
    if kind == "jsonl":
        rows = [{"file_name": "a.png", "text": [caption, "", "more"]}, {"file": "b.png", "caption": "b"}]
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    else:
        between = "," if kind == "csv" else "\t"
        quoted = caption.replace('"', '""')
        lines = [("file_name", "text"), ("a.png", f'"{quoted}"'), ("a.png", ""), ("a.png", "more"), ("b.png", "b")]
        text = "\n".join(between.join(line) for line in lines)
    table = put(tmp_path / f"captions.{kind}", text)
    source = FolderSource(tmp_path / "p", captions=table)
    assert source.read("a.png").captions == (caption, "more")
    assert source.read("b.png").captions == ("b",)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.csv", "name,words\na.png,hello\n", "expected columns file_name"),
        ("c.jsonl", '{"file_name": "a.png", "text": "x"}\n{"file_name":', "row 2 is not JSON"),
        ("c.xml", "<a/>", "captions are a .csv, .tsv or .jsonl file"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    put(tmp_path / "a.png", png(1))
    with pytest.raises(SourceError, match=said):
        FolderSource(tmp_path, captions=put(tmp_path / name, text))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no pictures"):
        FolderSource(tmp_path)
    with pytest.raises(SourceError, match="is no folder"):
        FolderSource(tmp_path / "none")


def test_coco_takes_the_80_things_and_all_five_captions(tmp_path: Path) -> None:
    """Stored values are category ids less 1: person 0, street sign (no thing of the 80) 11, toothbrush 89, hair brush
    90 (none of the 80), stuff from 91 on, 255 for no label."""
    assert len(THINGS) == 80
    put(tmp_path / "train" / "000000000009.jpg", png(7, (6, 1)))
    labels = io.BytesIO()
    Image.fromarray(np.array([[0, 11, 89, 90, 91, 255]], np.uint8)).save(labels, format="PNG")
    put(tmp_path / "labels" / "000000000009.png", labels.getvalue())
    put(tmp_path / "train" / "000000000010.jpg", png(8))
    told = {
        "images": [{"id": 9, "file_name": "000000000009.jpg"}],
        "annotations": [{"id": 50 - k, "image_id": 9, "caption": f"caption: {k}\n"} for k in range(5)],
    }
    captions = put(tmp_path / "captions.json", json.dumps(told))
    source = CocoSource(tmp_path / "train", tmp_path / "labels", captions)
    raw = source.read("000000000009.jpg")
    assert raw.captions == tuple(f"caption: {k}" for k in (4, 3, 2, 1, 0))
    assert np.asarray(raw.given["mask"]).tolist() == [[255, 0, 255, 0, 0, 0]]
    with pytest.raises(BrokenItem, match="no label map"):
        source.read("000000000010.jpg")
    by_id = CocoSource(tmp_path / "train", tmp_path / "labels", captions, "category ids")
    assert np.asarray(by_id.read("000000000009.jpg").given["mask"]).tolist() == [[0, 255, 255, 255, 0, 0]]


def pick_a_pic(folder: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        ("a fox", 1.0, 0.0, "u0", "u1"),
        ("a Wolf: grey", 0.0, 1.0, "u2", "u3"),
        ("tied", 0.5, 0.5, "u4", "u5"),
        ("a fox", 0.0, 1.0, "u6", "u0"),  # u0 wins again
        (None, 1.0, 0.0, "u7", "u8"),
    ]
    table = arrow.table({
        "caption": [row[0] for row in rows],
        "label_0": [row[1] for row in rows],
        "label_1": [row[2] for row in rows],
        "image_0_uid": [row[3] for row in rows],
        "image_1_uid": [row[4] for row in rows],
        "jpg_0": [png(int(row[3][1:])) for row in rows],
        "jpg_1": [png(int(row[4][1:])) for row in rows],
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, folder / "train-0.parquet", row_group_size=2)
    return folder


def test_pick_a_pic_takes_the_preferred_picture_once(tmp_path: Path) -> None:
    source = pickle.loads(pickle.dumps(PickAPicSource(pick_a_pic(tmp_path))))  # noqa: S301
    assert source.ids() == ["train-0/0000000/u0", "train-0/0000001/u3", "train-0/0000004/u7"]
    assert [shade(source, item) for item in source.ids()] == [0, 3, 7]
    assert [source.read(item).captions for item in source.ids()] == [("a fox",), ("a Wolf: grey",), ()]


def test_pick_a_pics_ties_and_words_are_options(tmp_path: Path) -> None:
    folder = pick_a_pic(tmp_path)
    assert [i[-2:] for i in PickAPicSource(folder, ties="both").ids()] == ["u0", "u3", "u4", "u5", "u7"]
    assert [i[-2:] for i in PickAPicSource(folder, ties="first").ids()] == ["u0", "u3", "u4", "u7"]
    source = PickAPicSource(folder, banned=("wolf", "ox"))  # whole words: a fox stays
    assert [i[-2:] for i in source.ids()] == ["u0", "u7"]
    assert source.facts()["left out by words"] == 1


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"caption": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="not Pick-a-Pic: it has no columns image_0_uid"):
        PickAPicSource(tmp_path)
    put(tmp_path / "x.parquet", "text")
    with pytest.raises(SourceError, match="no parquet file"):
        PickAPicSource(tmp_path)


def test_tars_are_read_at_any_place(tmp_path: Path) -> None:
    files = {
        "a/1.jpg": png(1), "a/1.txt": f"{ODD}\nsecond".encode(), "a/1.mask.png": png(255, mode="L"),
        "a/2.png": png(2), "a/2.json": json.dumps({"caption": ODD}).encode(), "a/3.txt": b"no picture",
        "a/4.foreground.png": png(9), "a/4.source.png": png(4), "a/4.json": b"{",
    }  # fmt: skip
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source = TarSource(tmp_path)
    assert source.ids() == ["shard/a/1", "shard/a/2", "shard/a/4"]
    assert source.read("shard/a/1").captions == (ODD, "second") and "mask" in source.read("shard/a/1").given
    assert source.read("shard/a/2").captions == (ODD,)
    assert [shade(source, item) for item in source.ids()[:2]] == [1, 2]
    with pytest.raises(BrokenItem):
        source.read("shard/a/4")


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(3):
            for ending, content in (("png", png(number)), ("json", b'{"caption": "one"}')):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_a_tar_cut_short_is_told_wherever_it_ends(tar: Path) -> None:
    content = tar.read_bytes()
    end = len(content.rstrip(b"\0"))
    for size in {*range(0, end, 97), *range(0, end, 512), end - 1, end}:
        tar.write_bytes(content[:size])
        with pytest.raises(SourceError, match=r"shard\.tar is (no whole|damaged or cut short)"):
            TarSource(tar)


def test_a_tar_with_any_flipped_bit_gives_its_samples_or_an_error_in_words(tar: Path) -> None:
    content = tar.read_bytes()
    seed = random.randrange(1 << 32)
    print("seed", seed)
    with tarfile.open(tar) as whole:
        own = {154, 155}  # what ends a header's checksum is not in it, and means nothing
        headers = {member.offset + byte for member in whole for byte in {*range(tarfile.BLOCKSIZE)} - own}
    for bit in random.Random(seed).sample(range(8 * len(content.rstrip(b"\0"))), 1500):
        tar.write_bytes(content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])
        try:
            source = TarSource(tar)
        except SourceError as error:
            assert "shard.tar" in str(error)
            continue
        assert bit // 8 not in headers, f"bit {bit} of a header was not noticed"
        for item in source.ids():
            with contextlib.suppress(BrokenItem):
                source.read(item)


def test_a_tar_that_becomes_shorter_while_it_is_read_breaks_its_items_alone(tar: Path) -> None:
    source = TarSource(tar)
    tar.write_bytes(tar.read_bytes()[:100])
    with pytest.raises(BrokenItem, match="has become shorter"):
        source.read("shard/2")


@pytest.mark.parametrize("text", [b"[1]", b"7", b'"text"', b"null", b"[" * 100_000, b"\xff", b"{"])
def test_captions_of_another_form_break_one_item(tmp_path: Path, text: bytes) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name, content in (("1.png", png(1)), ("1.json", text), ("2.png", png(2)), ("2.json", b'{"caption": [7]}')):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    source = TarSource(tmp_path)
    with pytest.raises(BrokenItem):
        source.read("shard/1")
    assert source.read("shard/2").captions == ("7",)


def test_the_releases_tree_keeps_captions_with_colons(tmp_path: Path) -> None:
    for name in ("10", "11"):
        put(tmp_path / "coco" / f"{name}.jpg", png(int(name)))
        put(tmp_path / "coco_mask" / f"{name}.png", png(255, mode="L"))
        put(tmp_path / "coco_background" / f"{name}.png", png(3))
    put(tmp_path / "coco_foreground_depthmaps" / "10.jpg", png(9))
    put(tmp_path / "coco_captions.txt", "10:a sign: stop\non two lines\n11:\n10.jpg:again\n")
    source = ReleaseSource(tmp_path / "coco")
    assert source.ids() == ["10", "11"]
    assert source.read("10").captions == ("a sign: stop\non two lines", "again")
    assert source.read("11").captions == ()
    assert set(source.read("10").given) == {"mask", "background", "fg_depth"}
    with pytest.raises(SourceError, match=r"nothing_captions.txt is missing|is no folder"):
        ReleaseSource(tmp_path / "nothing")


def test_scenes_are_the_same_whoever_reads_them() -> None:
    source = SceneSource(3, 64)
    raw, again = source.read("train-00000002"), SceneSource(5, 64).read("train-00000002")
    assert len(raw.captions) == len(set(raw.captions)) == 3
    for name in ("mask", "background", "fg_depth", "bg_depth", "source_depth"):
        assert np.array_equal(np.asarray(raw.given[name]), np.asarray(again.given[name])), name
    inside = np.asarray(raw.given["mask"]) > 0
    assert np.array_equal(np.asarray(raw.given["fg_depth"]) > 0, inside) and inside.any()
