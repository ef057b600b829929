"""Files of weights: the base model's U-Net, initial fusers, joined fusers, and the forms that others read."""

from .base import Base, read_base
from .export import export_fusers, merge_fusers
from .initial import Origins, convert, initial_global_fuser, initial_local_fuser

__all__ = [
    "Base",
    "Origins",
    "convert",
    "export_fusers",
    "initial_global_fuser",
    "initial_local_fuser",
    "merge_fusers",
    "read_base",
]
