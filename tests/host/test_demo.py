"""The demo, from input pictures to the sheet, with few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from devtools import demo


@pytest.mark.slow
def test_the_demo_writes_a_picture_of_everything(comfy: Path, tmp_path: Path) -> None:
    sheet = demo.run(comfy, ["--cpu"], steps=4, seed=1, output=tmp_path)
    assert Image.open(sheet).width > Image.open(sheet).height
    rows = range(1, len(demo.SCENES) + 1)
    for name in ("foreground", "background", "mask", "fg_depth", "bg_depth", "result"):
        assert all((tmp_path / f"{row}_{name}.png").is_file() for row in rows)
    assert len({(tmp_path / f"{row}_result.png").read_bytes() for row in rows}) == len(rows)
