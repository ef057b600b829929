"""A prepared set: everything that training would otherwise recompute, in a folder of a few large files.

    manifest.json        its own SHA-256, schema, sizes, arrays, models with their SHA-256, source, options, counts, and
                         the shards
    000000.safetensors   arrays of all samples of a shard, one row a sample, for memory maps
    000000.json          their ids and captions
    000000.tar           their pictures as lossless PNG in WebDataset's layout (optional)

Arrays, for N samples, latents of h x w and pictures of H x W = 8h x 8w:

    latents           (N, 4, h, w)     float16   mean of the autoencoder's posterior of I_s, in the U-Net's scale
    latent_deviation  (N, 4, h, w)     float16   its deviation, in the same scale (optional)
    fg_depth          (N, H, W)        uint16    round(65535 * depth(I_f)), near = 65535
    bg_depth          (N, H, W)        uint16    round(65535 * depth(I_b))
    source_depth      (N, H, W)        uint16    round(65535 * depth(I_s)) (optional)
    mask              (N, H, W)        uint8     round(255 * M)
    source_embed      (N, D)           float32   image_embeds of I_s: projected, not normalised
    background_embed  (N, D)           float32   image_embeds of I_b
    text              (N, K, 77, C)    float16   states of the first K captions, zeros beyond (optional)
    caption_count     (N,)             uint8     how many of the K there are, at least 1

Where a set's condition is not depth but edges, fg_depth and bg_depth hold those; the manifest says so.

`SetWriter` writes shards in any order, whole or not at all; `PreparedSet` reads any rows. A sample without a caption
has one empty caption. The manifest's `content` is a hash of all samples that depends neither on order nor on sharding.
"""

from .manifest import ArraySpec, Manifest, PreparedError, ShardEntry, Skip
from .manifest_file import has_checksum, read_manifest
from .reader import PreparedSet, to_float
from .verify import damaged_shards, drop_shards, unnamed_files
from .writer import DEPTH_MAX, MASK_MAX, Sample, SetWriter, array_specs

__all__ = [
    "DEPTH_MAX",
    "MASK_MAX",
    "ArraySpec",
    "Manifest",
    "PreparedError",
    "PreparedSet",
    "Sample",
    "SetWriter",
    "ShardEntry",
    "Skip",
    "array_specs",
    "damaged_shards",
    "drop_shards",
    "has_checksum",
    "read_manifest",
    "to_float",
    "unnamed_files",
]
