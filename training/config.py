"""Configs of commands: a flat, frozen dataclass, filled from a TOML file and then from the command line.

    @dataclass(frozen=True)
    class Blur:
        picture: Path = option("the picture to blur")
        radius: float = option("how far, in pixels", default=2.0)
        method: Literal["box", "gauss"] = option("the kernel", default="gauss")

    add_arguments(parser, Blur)                     # --config FILE, --picture, --radius, --method
    config = from_arguments(Blur, arguments)        # or load_config(Blur, file, {"radius": 3.0})
    save_config(config, folder / "config.toml")     # reads back as it is

A field's type is str, int, float, bool, Path, a Literal of strings, a tuple of one of these (`tuple[str, ...]`; a file
may name one text or path alone), or one of these or None. What fields ask of each other is for the dataclass's
`__post_init__` to check, by ValueError.
Paths are relative to the current directory, those in a file as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Config = TypeVar("Config")
_MISSING = dataclasses.MISSING


class ConfigError(ValueError):
    """A config that cannot be used: the message names the field, what came and what was expected."""


def option(about: str, *, default: Any = _MISSING) -> Any:
    """A field with a line for `--help`; without a default it has to be given."""
    return dataclasses.field(default=default, metadata={"help": about})


def load_config(cls: type[Config], file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config of a file (none: all defaults), with the fields in `overrides` in place of the file's.

    Raises ConfigError for a file that is not there or not TOML, a field that there is not (with the nearest name), a
    value of another type or out of its choices, a field that is missing, and for what `__post_init__` refuses.
    """
    given = _read(file) if file else {}
    kinds = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for origin, fields in ((str(file), given), ("the command line", overrides or {})):
        for name, value in fields.items():
            if name not in kinds:
                raise ConfigError(f"{origin}: there is no field {name!r}{_nearest(name, kinds)}")
            values[name] = _checked(kinds[name], value, f"{origin}: {name}")
    missing = [field.name for field in _fields(cls) if _is_required(field) and field.name not in values]
    if missing:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise ConfigError(f"not given: {', '.join(missing)}; put it into the config file, or add {options}")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{file}: {error}" if file else str(error)) from error


def add_arguments(parser: argparse.ArgumentParser, cls: type[Any]) -> None:
    """Add `--config FILE` and an option for each field; a bool field takes `--field` and `--no-field`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of these fields; options win over it")
    kinds = typing.get_type_hints(cls)
    for field in _fields(cls):
        kind, _ = _without_none(kinds[field.name])
        about = str(field.metadata.get("help", "")).replace("%", "%%") + _default_text(field)
        names = [f"--{field.name.replace('_', '-')}"]
        settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": about}
        if kind is bool:
            parser.add_argument(*names, action=argparse.BooleanOptionalAction, **settings)
            continue
        if typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
            settings["nargs"] = "*"
        if typing.get_origin(kind) is Literal:
            settings["choices"] = typing.get_args(kind)
        else:
            settings["metavar"] = {Path: "PATH", int: "N", float: "X"}.get(kind, "TEXT")
        parser.add_argument(*names, **settings)


def from_arguments(cls: type[Config], arguments: argparse.Namespace) -> Config:
    """The config of parsed arguments that `add_arguments` has described. Raises what `load_config` raises."""
    kinds = typing.get_type_hints(cls)
    given = {field.name: getattr(arguments, field.name) for field in _fields(cls) if hasattr(arguments, field.name)}
    parsed = {name: _parsed(kinds[name], value, f"--{name.replace('_', '-')}") for name, value in given.items()}
    return load_config(cls, arguments.config, parsed)


def save_config(config: Any, path: Path) -> None:
    """Write every field as TOML, so that `load_config` makes the same config of it; a None is left out."""
    lines = [
        f"{field.name} = {_toml(value)}"
        for field in _fields(config)
        if (value := getattr(config, field.name)) is not None
    ]
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    unfinished.replace(path)


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and says which option an unknown one may have meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in the standard library, but a misspelt option is an error here, where its neighbours are known."""
        known, unknown = super().parse_known_args(args, namespace)
        for text in unknown:
            if text.startswith("--"):
                name = text.split("=")[0]
                options = [option for action in self._actions for option in action.option_strings]
                self.error(f"there is no option {name}{_nearest(name, options)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line, without the usage text, which hides it."""
        self.exit(2, f"{self.prog}: {message}\n")

    def run(self, expected: tuple[type[Exception], ...]) -> None:
        """Parse the command line and run what it names (`run`), to end with an expected error's text alone."""
        arguments = self.parse_args()
        try:
            arguments.run(arguments)
        except expected as error:
            name = " ".join(filter(None, (self.prog, getattr(arguments, "command", None))))
            raise SystemExit(f"{name}: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))  # some editors put a byte order mark before it
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not TOML: it is no UTF-8 ({error}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # of TOML, and of numbers and lists beyond Python's limits
        raise ConfigError(f"{file} is not TOML: {error}") from error


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is _MISSING and field.default_factory is _MISSING


def _default_text(field: dataclasses.Field[Any]) -> str:
    if field.default is None:
        return ""
    if _is_required(field):
        return " (required)"
    value = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    return f" (default: {str(value).replace('%', '%%') or 'empty'})"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(known)}"


def _without_none(kind: Any) -> tuple[Any, bool]:
    """A type without its `| None`, and whether it had one."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(kind) if part is not type(None)]
        return rest[0], len(rest) < len(typing.get_args(kind))
    return kind, False


def _parsed(kind: Any, value: Any, place: str) -> Any:
    """What the command line's text means for a field of this type; `_checked` then judges it."""
    kind, optional = _without_none(kind)
    if isinstance(value, list):
        return [_parsed(typing.get_args(kind)[0], part, place) for part in value]
    if optional and value == "none":
        return None
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            raise ConfigError(f"{place}: expected {_described(kind)}, got {value!r}") from None
    return value


def _checked(kind: Any, value: Any, place: str) -> Any:
    """A value as its field's type. Raises ConfigError where it is of another."""
    kind, optional = _without_none(kind)
    if value is None and optional:
        return None
    if typing.get_origin(kind) is tuple and isinstance(value, str | Path):
        value = [value]
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_checked(typing.get_args(kind)[0], part, place) for part in value)
    if typing.get_origin(kind) is Literal and value in typing.get_args(kind):
        return value
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise ConfigError(f"{place}: expected {_described(kind)}, got {value!r}")


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return f"a list, each {_described(typing.get_args(kind)[0])}"
    named = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    return named.get(kind, str(kind))


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | Path):
        # A JSON text is a TOML text, but for the one control character that JSON leaves as it is.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
