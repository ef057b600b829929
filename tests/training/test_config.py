"""Configs: TOML and command line into a typed dataclass, and every mistake named."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from training.config import ConfigError, Parser, add_arguments, from_arguments, load_config, option, save_config


@dataclass(frozen=True)
class Recipe:
    pictures: Path = option("where the pictures are")
    learning_rate: float = option("of AdamW", default=1e-5)
    epochs: tuple[int, ...] = option("of each stage", default=(28, 24, 9))
    stage: Literal["local", "global"] = option("which fuser, 100 % of it", default="local")
    frozen: bool = option("freeze the base", default=True)
    limit: int | None = option("stop after so many", default=None)
    prompt: str = option("the validation's prompt", default="")
    sets: tuple[Path, ...] = option("what it is trained on", default=())

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is above 0; got {self.learning_rate}")


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def from_line(*line: str) -> Recipe:
    parser = Parser(prog="training")
    add_arguments(parser, Recipe)
    return from_arguments(Recipe, parser.parse_args(line))


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, 'pictures = "a"\nlearning_rate = 1\nepochs = [2, 3]\nfrozen = false\n')
    assert load_config(Recipe, file) == Recipe(Path("a"), 1.0, (2, 3), frozen=False)
    line = ("--config", str(file), "--learning-rate", "2e-4", "--epochs", "4", "--frozen", "--limit", "7")
    assert from_line(*line) == Recipe(Path("a"), 2e-4, (4,), frozen=True, limit=7)
    assert from_line("--pictures", "b", "--limit", "none") == Recipe(Path("b"))


def test_one_text_or_path_stands_for_a_list_of_one(tmp_path: Path) -> None:
    for sets in ('"one"', '["one"]'):
        assert load_config(Recipe, written(tmp_path, f'pictures = "a"\nsets = {sets}')).sets == (Path("one"),)


def test_a_saved_config_reads_back(tmp_path: Path) -> None:
    odd = 'a "quoted"\tline\n\\ back\x7f, \u5c71 \U0001f3d4'
    config = Recipe(Path("a b"), 1e-5, (), "global", False, None, odd)
    save_config(config, tmp_path / "config.toml")
    assert load_config(Recipe, tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('pictures = "a"\nlearning_rte = 1', "no field 'learning_rte'; did you mean 'learning_rate'"),
        ('pictures = "a"\nlearning_rate = "1"', "learning_rate: expected a number, got '1'"),
        ('pictures = "a"\nepochs = [1, 2.5]', "epochs: expected a whole number, got 2.5"),
        ('pictures = "a"\nepochs = 3', "epochs: expected a list, each a whole number, got 3"),
        ('pictures = "a"\nfrozen = 1', "frozen: expected true or false, got 1"),
        ('pictures = "a"\nlimit = true', "limit: expected a whole number, got True"),
        ('pictures = "a"\nstage = "joint"', "stage: expected one of 'local', 'global', got 'joint'"),
        ('pictures = "a"\nlearning_rate = nan', "expected a number, got nan"),
        ('pictures = "a"\nlearning_rate = -1', "learning_rate is above 0; got -1.0"),
        ("frozen = true", "not given: pictures; put it into the config file, or add --pictures"),
        ("pictures", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Recipe, written(tmp_path, text))
    assert said in str(caught.value)
    assert "recipe.toml" in str(caught.value) or "not given" in said


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('pictures = "a"', encoding="utf-8-sig")
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert load_config(Recipe, path) == Recipe(Path("a"))


@pytest.mark.parametrize(
    "content",
    [
        'pictures = "a"'.encode("utf-16"), 'pictures = "a"'.encode("utf-16-le"), b'pictures = "\xff"', b"a\0b",
        b"limit = " + b"9" * 5000, b"sets = " + b"[" * 100_000, b"\xed\xa0\x80",
    ],
    ids=["utf-16", "utf-16 without a mark", "latin-1", "null", "long number", "deep", "surrogate"],
)  # fmt: skip
def test_bytes_that_are_no_toml_are_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"recipe\.toml is not TOML: "):
        load_config(Recipe, path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(Recipe, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--pictures", "a", "--learnin-rate", "1"), "no option --learnin-rate; did you mean '--learning-rate'"),
        (("--pictures", "a", "--learning=1"), "no option --learning"),  # no abbreviations
        (("--pictures", "a", "--stage", "joint"), "invalid choice: 'joint'"),
    ],
)
def test_a_misspelt_option_is_refused(capsys: pytest.CaptureFixture[str], line: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        from_line(*line)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="--limit: expected a whole number, got 'many'"):
        from_line("--pictures", "a", "--limit", "many")


def test_help_tells_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    parser: argparse.ArgumentParser = Parser(prog="training")
    add_arguments(parser, Recipe)
    said = " ".join(parser.format_help().split())
    for text in ("--learning-rate X of AdamW (default: 1e-05)", "--no-frozen", "(required)", "100 % of it", "28 24 9"):
        assert text in said
