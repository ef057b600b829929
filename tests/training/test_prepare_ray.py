"""Ray Data on a cluster of this machine's two processors writes what the default engine writes, to the byte."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


@pytest.mark.slow
def test_ray_writes_the_same_bytes(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    script = textwrap.dedent(
        f"""
        import ray
        from dataclasses import replace
        from pathlib import Path
        from training.prepare import PrepareConfig, prepare
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
        config = PrepareConfig(
            Path({str(tmp_path)!r}) / "ray", "scenes", scenes=7, size=64, mask="mini", shard_size=4, batch_size=2,
            workers=1, threads=1, device="cpu", engine="ray",
        )
        prepare(config)
        prepare(replace(config, out=config.out.with_name("local"), engine="local"))
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in sorted(path.name for path in (tmp_path / "local").iterdir() if path.suffix not in (".toml", ".lock")):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    assert len(list((tmp_path / "ray").glob("*.safetensors"))) == 2
