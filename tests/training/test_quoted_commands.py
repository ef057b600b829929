"""Every command of the training package that a page, a recipe or a message quotes exists, with each of its options."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cnc_core.perception.weights import TABLE
from training.__main__ import make_parser
from training.config import load_config, save_config
from training.prepare import PrepareConfig
from training.train.logs import read_log

from .test_train_resume import ROOT
from .train_inputs import tiny_config

_COMMAND = re.compile(r"(?:python -m training|-m training(?= train))((?: (?![&|;])[^\s`&|;#\"]+)+)")
_PAGES = (
    *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "training").rglob("*.md"),
    *(ROOT / "training").rglob("*.toml"), *(ROOT / "training").rglob("*.py"),
)  # fmt: skip


def quoted() -> list[tuple[str, str]]:
    """Each command with its page."""
    found = []
    for page in _PAGES:
        text = re.sub(r"\\\n\s*#?\s*", "", page.read_text(encoding="utf-8"))  # lines that go on
        for match in _COMMAND.finditer(text):
            words = match[1].strip().rstrip(".,:)'")
            if words and not re.search(r"[{|]|\.\.\.|^COMMAND", words):
                found.append((page.relative_to(ROOT).as_posix(), words))
    return found


def test_every_quoted_command_and_option_exists(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    commands = quoted()
    assert len(commands) > 50
    for page, words in commands:
        arguments = shlex.split(words.replace("$l", "1"))
        if len(arguments) <= 2 and all(word.isalpha() for word in arguments):
            arguments = [*arguments, "--help"]  # a command's name alone
        try:
            make_parser().parse_args(arguments)
        except SystemExit as ended:
            if ended.code:
                wrong.append(f"{page}: {words}: {capsys.readouterr().err.strip()}")
        for name, value in itertools.pairwise(arguments):
            if name == "--config" and not (ROOT / value).is_file():
                wrong.append(f"{page}: {words}: there is no {value}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["prepare_coco", "prepare_pickapic"])
def test_recipes_name_models_where_fetch_puts_them(name: str) -> None:
    config = load_config(PrepareConfig, ROOT / "training" / "recipes" / f"{name}.toml", {"out": "x"})
    fetched = {entry.file: entry.folder for entry in TABLE}
    for model in (config.mask, config.depth):
        if model != "given":
            assert Path("models") / fetched[model] in config.models, model
    assert {folder.parts[1] for folder in config.models} <= set(fetched.values())


@pytest.mark.slow
def test_accelerates_launcher_starts_two_processes_where_it_is_told_two(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=2)
    save_config(config, tmp_path / "run.toml")
    launcher = Path(sys.executable).with_name("accelerate-launch")
    command = [launcher, "--multi_gpu", "--num_processes", "2", "-m", "training", "train"]
    ended = subprocess.run(
        [*command, "--config", str(tmp_path / "run.toml")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "on 2 x cpu" in ended.stdout + ended.stderr
    assert [line["step"] for line in read_log(config.out) if "loss" in line] == [1, 2]
