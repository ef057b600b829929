"""Compose and Conquer in plain torch: fusers, soft guidance, the U-Net for training, checkpoints."""

from .attention import Kernels, fused_attention, guided_attention
from .checkpoints import CheckpointError, Fusers, load_fusers, read_checkpoint, save_fusers
from .config import FuserConfig
from .global_fuser import GlobalFuser
from .guidance import Guidance, Region, Schedule, token_mask
from .guided_tokens import GuidedContext, GuidedTokens
from .local_fuser import DepthEncoding, LocalFuser
from .triplet import Triplet, make_triplet
from .unet import UNet

__all__ = [
    "CheckpointError",
    "DepthEncoding",
    "FuserConfig",
    "Fusers",
    "GlobalFuser",
    "Guidance",
    "GuidedContext",
    "GuidedTokens",
    "Kernels",
    "LocalFuser",
    "Region",
    "Schedule",
    "Triplet",
    "UNet",
    "fused_attention",
    "guided_attention",
    "load_fusers",
    "make_triplet",
    "read_checkpoint",
    "save_fusers",
    "token_mask",
]
