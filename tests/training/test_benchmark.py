"""The benchmark of training runs, on networks as small as they get."""

from __future__ import annotations

import re

import pytest

from benchmarks import training as benchmark


@pytest.mark.slow
def test_both_kinds_of_step_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--tiny", "--size", "128", "--only", "local", "--batch", "1", "2", "--rounds", "1"])
    told = capsys.readouterr().out
    found = re.findall(r"batch (\d): prepared ([\d.]+) a second .*, encoding each time ([\d.]+) a second", told)
    assert [batch for batch, *_ in found] == ["1", "2"]
    assert all(float(prepared) > float(encoding) > 0 for _, prepared, encoding in found), "encoding is extra work"
    assert "encoding each time runs the autoencoder and the text encoder" in told
    assert "the U-Net's forward alone, batch 2" in told
