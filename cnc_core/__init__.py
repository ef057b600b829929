"""Compose and Conquer in plain torch: fusers, soft guidance, the U-Net for training, checkpoints."""

from .attention import GuidedContext, Kernels, fused_attention, guided_attention
from .config import FuserConfig
from .global_fuser import GlobalFuser
from .guidance import Guidance, Region, token_mask
from .local_fuser import DepthEncoding, LocalFuser
from .unet import UNet

__all__ = [
    "DepthEncoding",
    "FuserConfig",
    "GlobalFuser",
    "Guidance",
    "GuidedContext",
    "Kernels",
    "LocalFuser",
    "Region",
    "UNet",
    "fused_attention",
    "guided_attention",
    "token_mask",
]
