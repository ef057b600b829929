"""The demo, from input pictures to the sheet, with few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from devtools import demo, demo_picture
from devtools.environment import SetupError


@pytest.mark.slow
def test_the_demo_writes_a_picture_of_everything(comfy: Path, tmp_path: Path) -> None:
    sheet = demo.run(comfy, ["--cpu"], steps=4, seed=1, output=tmp_path)
    assert Image.open(sheet).width > Image.open(sheet).height
    rows = range(1, len(demo.SCENES) + 1)
    for name in ("foreground", "background", "mask", "fg_depth", "bg_depth", "result"):
        assert all((tmp_path / f"{row}_{name}.png").is_file() for row in rows)
    assert len({(tmp_path / f"{row}_result.png").read_bytes() for row in rows}) == len(rows)


@pytest.mark.slow
def test_a_picture_from_disk_says_what_it_was_made_with(
    comfy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = demo.PICTURES / "cone.png"
    sheet = demo_picture.run(comfy, ["--cpu"], picture, None, "", 2, 1, models=tmp_path, output=tmp_path / "out")
    told = capsys.readouterr().out
    assert "mask: mini, background: telea, depth: mini" in told and "not a photograph" in told
    assert all((sheet.parent / f"{name}.png").is_file() for name in demo_picture.COLUMNS)
    assert (sheet.parent / "background.png").read_bytes() != (sheet.parent / "picture.png").read_bytes()


def test_what_is_no_picture_is_told(comfy: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("no picture")
    with pytest.raises(SetupError, match=r"letter\.png is no picture"):
        demo_picture.run(comfy, ["--cpu"], tmp_path / "letter.png", None, "", 2, 1, output=tmp_path)
