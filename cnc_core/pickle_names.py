"""The classes and functions that a checkpoint's pickle may name.

None of them is imported or called for it (see :mod:`.pickled`): the list tells checkpoints as PyTorch and PyTorch
Lightning write them from pickles that ask for something else, which are not to be trusted elsewhere either.
"""

from __future__ import annotations

_NAMES: dict[str, str] = {
    "_codecs": "encode",
    "argparse": "Namespace",
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple type "
    "long unicode xrange",  # the last as protocol 2 calls int, str and range
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "types": "SimpleNamespace",
    "typing": "Any Dict List Optional Tuple Union",
    "uuid": "UUID",
    "numpy": "bool_ dtype float16 float32 float64 int16 int32 int64 int8 ndarray uint16 uint32 uint64 uint8",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "omegaconf.base": "Box Container ContainerMetadata Metadata Node UnionNode",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode InterpolationResultNode PathNode "
    "StringNode ValueNode",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.callbacks.callback": "Callback",
    "lightning.pytorch.callbacks.early_stopping": "EarlyStopping",
    "lightning.pytorch.callbacks.finetuning": "BackboneFinetuning BaseFinetuning",
    "lightning.pytorch.callbacks.lr_monitor": "LearningRateMonitor",
    "lightning.pytorch.callbacks.model_checkpoint": "ModelCheckpoint",
    "lightning.pytorch.callbacks.stochastic_weight_avg": "StochasticWeightAveraging",
    "lightning.pytorch.callbacks.timer": "Timer",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "torch": "Size Tensor device",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch._utils": "_rebuild_device_tensor_from_cpu_tensor _rebuild_device_tensor_from_numpy "
    "_rebuild_meta_tensor_no_storage _rebuild_nested_tensor _rebuild_parameter _rebuild_parameter_with_state "
    "_rebuild_qtensor _rebuild_sparse_tensor _rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 "
    "_rebuild_wrapper_subclass",
    "torch.nn.parameter": "Buffer Parameter",
    "torch.serialization": "_get_layout",
    "torch.storage": "TypedStorage UntypedStorage _TypedStorage _UntypedStorage",
}
"""By module, as they are called today."""

_MOVED: dict[str, tuple[str, ...]] = {
    "lightning.fabric.": ("lightning_fabric.",),
    "lightning.pytorch.callbacks.callback": (
        "pytorch_lightning.callbacks.base",
        "pytorch_lightning.callbacks.callback",
    ),
    "lightning.pytorch.": ("pytorch_lightning.",),
    "numpy.core.": ("numpy._core.",),
    "pathlib": ("pathlib._local",),
}
"""Beginnings of a module's name, and where else the module stands or stood."""

STORAGES: dict[str, str] = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool"},
    **{"ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128"},
    **{"QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32"},
}
"""torch's classes of storages, and the dtype of each."""

_DTYPES = (
    "bfloat16 bool complex128 complex32 complex64 float16 float32 float64 float8_e4m3fn float8_e4m3fnuz float8_e5m2 "
    "float8_e5m2fnuz float8_e8m0fnu int16 int32 int64 int8 qint32 qint8 quint8 uint16 uint32 uint64 uint8 "
    "channels_last contiguous_format per_channel_affine per_tensor_affine preserve_format strided sparse_coo sparse_csr"
)


def _names() -> frozenset[str]:
    modules = dict(_NAMES)
    for beginning, others in _MOVED.items():
        for module, names in _NAMES.items():
            if module.startswith(beginning):
                modules |= {other + module.removeprefix(beginning): names for other in others}
    modules["torch"] += f" {' '.join(STORAGES)} {_DTYPES}"
    return frozenset(f"{module}.{name}" for module, names in modules.items() for name in names.split())


ALLOWED = _names()
"""All of them, as ``module.name``."""
