"""Checkpoints as PyTorch Lightning writes them: its objects are passed over, code is refused."""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import functools
import importlib
import io
import os
import pathlib
import pickle
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnc_core import CheckpointError, Fusers, load_fusers
from cnc_core.pickled import Call, Name, Refused, read_pickle

from .archives import entries_of, replace_in_pickle
from .golden import State, of

LIBRARIES = {
    "omegaconf.base": ["ContainerMetadata", "Metadata"],
    "omegaconf.dictconfig": ["DictConfig"],
    "omegaconf.listconfig": ["ListConfig"],
    "omegaconf.nodes": ["AnyNode", "ValueNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode"],
    "pytorch_lightning.callbacks.model_checkpoint": ["ModelCheckpoint"],
    "pytorch_lightning.callbacks.early_stopping": ["EarlyStopping"],
    "lightning.pytorch.callbacks.model_checkpoint": ["ModelCheckpoint"],
    "lightning.pytorch.callbacks.lr_monitor": ["LearningRateMonitor"],
}
"""Classes that are pickled by their state, as the libraries' own are."""

MAPPINGS = ["pytorch_lightning.utilities.parsing", "lightning_fabric.utilities.data", "lightning.fabric.utilities.data"]
"""Where Lightning has AttributeDict, a subclass of dict."""


class Libraries:
    """Classes by the names of the libraries'; ``touched`` says which were made or given a state."""

    def __init__(self) -> None:
        self.touched: list[str] = []
        self.modules: dict[str, types.ModuleType] = {}
        for module, names in LIBRARIES.items():
            for name in names:
                self._add(module, name, object)
        for module in MAPPINGS:
            self._add(module, "AttributeDict", dict)

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = name.rpartition(".")
        return getattr(self.modules[module], attribute)

    def _add(self, module: str, name: str, base: type) -> None:
        def made(cls: type, *_: Any) -> Any:
            self.touched.append(name)
            return base.__new__(cls)

        def given(_: Any, state: Any) -> None:
            self.touched.append(name)

        members = {"__module__": module, "__new__": made, "__setstate__": given}
        parts = module.split(".")
        for package in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
            self.modules.setdefault(package, types.ModuleType(package))
        setattr(self.modules[module], name, type(name, (base,), members))

    def made(self, name: str, **state: Any) -> Any:
        """Make an object of a library's class with this state."""
        result = self[name]()
        result.__dict__.update(state)
        return result


@pytest.fixture()
def libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[Libraries]:
    found = Libraries()
    for name, module in found.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield found


def lightning_checkpoint(libraries: Libraries, state: State) -> dict[str, Any]:
    """Everything that Lightning's own and the libraries' users leave beside the weights."""

    def node(kind: str, value: Any, parent: Any) -> Any:
        described = libraries.made(
            "omegaconf.base.Metadata", ref_type=typing.Any, object_type=type(value), optional=True, key="k", flags={}
        )
        return libraries.made(f"omegaconf.nodes.{kind}", _metadata=described, _parent=parent, _val=value)

    def container(name: str, kind: type, content: Any) -> Any:
        described = libraries.made(
            "omegaconf.base.ContainerMetadata",
            **{"ref_type": typing.Any, "object_type": kind, "key_type": typing.Any, "element_type": typing.Any},
            resolver_cache=collections.defaultdict(dict),
        )
        return libraries.made(name, _metadata=described, _parent=None, _content=content)

    config = container("omegaconf.dictconfig.DictConfig", dict, {})
    config._content |= {
        "lr": node("FloatNode", 1e-5, config),
        "name": node("StringNode", "cnc", config),
        "steps": node("IntegerNode", 4, config),
        "flag": node("BooleanNode", True, config),
        "any": node("AnyNode", None, config),
        "value": node("ValueNode", None, config),
        "sizes": container("omegaconf.listconfig.ListConfig", list, [node("AnyNode", 1, config)]),
    }
    attributes = [libraries[f"{module}.AttributeDict"]({"lr": 0.1, "inner": {"a": [1]}}) for module in MAPPINGS]
    ordered: Any = collections.OrderedDict(state)
    ordered._metadata = collections.OrderedDict({"": {"version": 1}})
    return {
        "epoch": 3,
        "global_step": 12_000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": ordered,
        "callbacks": {
            libraries["pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"]: {
                "best_model_score": torch.tensor(0.25),
                "dirpath": pathlib.PurePosixPath("/runs"),
                "best_k_models": collections.defaultdict(float, {"a.ckpt": 0.5}),
            },
            libraries["lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"]: {},
            libraries["lightning.pytorch.callbacks.lr_monitor.LearningRateMonitor"]: {},
            libraries["pytorch_lightning.callbacks.early_stopping.EarlyStopping"]: {"patience": np.int64(3)},
        },
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}}, "param_groups": []}
        ],
        "lr_schedulers": [{"base_lrs": [1e-5], "last": np.float64(0.5)}],
        "hparams_name": "config",
        "hyper_parameters": {
            "config": config,
            "attributes": attributes,
            "args": argparse.Namespace(lr=1e-4, out=pathlib.Path("runs")),
            "path": pathlib.PurePosixPath("data/images"),
            "windows": pathlib.PureWindowsPath("data"),
            "started": datetime.datetime(2024, 2, 3, tzinfo=datetime.timezone.utc),  # noqa: UP017 - as it is pickled
            "took": datetime.timedelta(hours=3),
            "day": datetime.date(2024, 2, 3),
            "mean": np.arange(6.0).reshape(2, 3),
            "words": np.array(["a", "b"]),
            "seen": {1, 2},
            "counts": collections.Counter("abca"),
            "last": collections.deque([1, 2]),
            "dtype": torch.float16,
            "device": torch.device("cpu"),
            "size": torch.Size([1, 2]),
            "sparse": torch.eye(3).to_sparse(),
            "raw": b"bytes",
            "z": 1 + 2j,
        },
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_lightning_checkpoint_loads(
    tmp_path: Path, libraries: Libraries, released_state: State, fusers: Fusers, protocol: int, zipped: bool
) -> None:
    path = tmp_path / "last.ckpt"
    content = lightning_checkpoint(libraries, released_state)
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    libraries.touched.clear()
    before = set(torch.serialization.get_safe_globals())
    loaded = load_fusers(path, num_heads=4)
    for found, expected in ((loaded.local_fuser, fusers.local_fuser), (loaded.global_fuser, fusers.global_fuser)):
        assert found is not None
        assert expected is not None
        for name, value in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name
    assert libraries.touched == []
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_class_as_a_key(tmp_path: Path, released_state: State) -> None:
    """By pickle's GLOBAL, as Lightning 1 names its callbacks."""
    path = tmp_path / "cnc_v1.ckpt"
    torch.save({"callbacks": {"CLASS": {}}, "state_dict": of(released_state, "global_adapter.")}, path)
    named = b"clightning.pytorch.callbacks.model_checkpoint\nModelCheckpoint\n"
    replace_in_pickle(path, b"X\x05\x00\x00\x00CLASS", named)
    assert load_fusers(path).global_fuser is not None


@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(a=1),
        pathlib.PurePosixPath("a"),
        datetime.datetime(2024, 1, 2),
        np.arange(3),
        np.float32(1),
        collections.defaultdict(list),
        {1, 2},
        bytearray(b"a"),
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_allowed_objects_are_descriptions(value: Any, protocol: int) -> None:
    found = read_pickle(io.BytesIO(pickle.dumps(value, protocol=protocol)))
    assert found is None or type(found) in (Call, bytes, bytearray)


def test_classes_are_names() -> None:
    found = read_pickle(io.BytesIO(pickle.dumps([dict, typing.Any, datetime.date], protocol=2)))
    assert [type(entry) for entry in found] == [Name] * 3
    assert [entry.name for entry in found] == ["builtins.dict", "typing.Any", "datetime.date"]


class Reduced:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


CODE: dict[str, Callable[[Path], Reduced]] = {
    "io.open": lambda victim: Reduced(open, str(victim), "w"),
    "posix.system": lambda victim: Reduced(os.system, f"touch {victim}"),
    "builtins.eval": lambda victim: Reduced(builtins.eval, f"open({str(victim)!r}, 'w')"),
    "builtins.exec": lambda victim: Reduced(builtins.exec, f"open({str(victim)!r}, 'w')"),
    "builtins.getattr": lambda victim: Reduced(getattr, victim, "touch"),
    "functools.partial": lambda victim: Reduced(functools.partial, victim.touch),
    "importlib.import_module": lambda victim: Reduced(importlib.import_module, "this"),
    "torch.storage._load_from_bytes": lambda victim: Reduced(torch.storage._load_from_bytes, b"a"),
}


@pytest.mark.skipif(os.name != "posix", reason="names of functions of POSIX")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("asked", CODE)
def test_any_other_call_is_refused_by_its_name(
    tmp_path: Path, libraries: Libraries, released_state: State, asked: str, protocol: int
) -> None:
    victim = tmp_path / "victim"
    content = lightning_checkpoint(libraries, of(released_state, "global_adapter."))
    content["hyper_parameters"]["more"] = CODE[asked](victim)
    torch.save(content, tmp_path / "last.ckpt", pickle_protocol=protocol)
    with pytest.raises(CheckpointError) as refused:
        load_fusers(tmp_path / "last.ckpt")
    assert f"it asks for {asked}, which was refused and not executed" in str(refused.value)
    assert not victim.exists()


@pytest.mark.parametrize(
    "name",
    ["torch\nhub.load", "pathlib\nPosixPath.touch", "collections\nOrderedDict.clear", "numpy\nload", "\x1b[1m\nx"],
)
def test_names_are_allowed_as_a_whole(tmp_path: Path, released_state: State, name: str) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"more": "CODE", "state_dict": of(released_state, "global_adapter.")}, path)
    replace_in_pickle(path, b"X\x04\x00\x00\x00CODE", f"c{name}\n)R".encode())
    with pytest.raises(CheckpointError, match="it asks for") as refused:
        load_fusers(path)
    assert str(refused.value).isprintable()


def test_what_a_call_would_return_is_not_called() -> None:
    pickled = b"\x80\x02cpathlib\nPosixPath\n)R)R."
    with pytest.raises(Refused, match="calls a Call that it made"):
        read_pickle(io.BytesIO(pickled))


def test_a_special_tensor_among_the_weights_is_named(tmp_path: Path, released_state: State) -> None:
    name = "global_adapter.ff1_fg.net.2.weight"
    state = of(released_state, "global_adapter.")
    torch.save({**state, name: state[name].to_sparse()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=f"holds {name} as a sparse"):
        load_fusers(tmp_path / "last.ckpt")


def test_python_2s_pickles_and_parameters(tmp_path: Path, released_state: State, fusers: Fusers) -> None:
    """Parameters in place of tensors, and mappings as lists of pairs."""
    state = {name: torch.nn.Parameter(value) for name, value in of(released_state, "global_adapter.").items()}
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": PairsOfPython2(state)}, path)
    assert any(b"OrderedDict" in data for data in entries_of(path).values())
    loaded = load_fusers(path).global_fuser
    assert loaded is not None
    assert fusers.global_fuser is not None
    for name, value in fusers.global_fuser.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


class PairsOfPython2(Reduced):
    """An OrderedDict as Python 2 reduces it."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(collections.OrderedDict, [[key, value] for key, value in content.items()])
