"""What many of the templates have in common: models, prompts, sampling, notes."""

from __future__ import annotations

from dataclasses import dataclass

from .sheet import Link, Model, Sheet

HUB = "https://huggingface.co"
BASE = Model(
    "v1-5-pruned-emaonly-fp16.safetensors",
    "checkpoints",
    f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
)
FUSERS = Model("cnc_v1.ckpt", "cnc")
CLIP_VISION = Model(
    "clip-vit-large-patch14.safetensors",
    "clip_vision",
    f"{HUB}/openai/clip-vit-large-patch14/resolve/main/model.safetensors",
)

QUALITY = " , masterpiece, ultra detailed, high resolution"
"""What the authors add to each prompt."""

SCENE = "yellow cone in front of blue cube on grass , blue sky , noon"

SD_MODELS = f"""
| file | folder under `models` | from |
| --- | --- | --- |
| any Stable Diffusion 1.5 model, such as `{BASE.name}` | `checkpoints` | [download]({BASE.url}) |
| the authors' fusers, `{FUSERS.name}` | `cnc` | [their page](https://github.com/tomtom1103/compose-and-conquer#setup) |
| CLIP ViT-L/14, saved as `{CLIP_VISION.name}` | `clip_vision` | [download]({CLIP_VISION.url}) |
"""

STAND_IN = "The thumbnail was made with CnC-Mini in the place of Stable Diffusion."


@dataclass(frozen=True)
class Models:
    """What composing needs."""

    model: Link
    clip: Link
    vae: Link
    clip_vision: Link
    fusers: Link


def mini(sheet: Sheet) -> Models:
    """CnC-Mini, which comes with the pack."""
    loaded = sheet.node("CnC_LoadMini", "CnC-Mini")
    return Models(*(loaded[name] for name in ("model", "clip", "vae", "clip_vision", "fusers")))


def stable_diffusion(sheet: Sheet) -> Models:
    """Stable Diffusion 1.5 with the authors' fusers."""
    base = sheet.node(
        "CheckpointLoaderSimple", "Stable Diffusion 1.5", ckpt_name=BASE.name, models=[BASE], size=(340, None)
    )
    fusers = sheet.node("CnC_LoadFusers", "The authors' fusers", fusers_name=FUSERS.name, size=(340, None))
    vision = sheet.node(
        "CLIPVisionLoader", "CLIP ViT-L/14", clip_name=CLIP_VISION.name, models=[CLIP_VISION], size=(340, None)
    )
    return Models(base["MODEL"], base["CLIP"], base["VAE"], vision["CLIP_VISION"], fusers["fusers"])


def prompts(sheet: Sheet, clip: Link, positive: str, negative: str = "") -> tuple[Link, Link]:
    """The two prompts."""
    written = [
        sheet.node("CLIPTextEncode", title, clip=clip, text=text, size=(340, 110))
        for title, text in (("Prompt", positive), ("Negative prompt", negative))
    ]
    return written[0]["CONDITIONING"], written[1]["CONDITIONING"]


def picture(sheet: Sheet, title: str, file: str) -> Link:
    """A picture of the user's; ours until then."""
    return sheet.node("LoadImage", title, image=f"cnc_{file}.png", size=(240, 330))["IMAGE"]


def latent(sheet: Sheet, side: int, batch: int = 1) -> Link:
    """The empty picture to begin with, which says how large the result is."""
    made = sheet.node("EmptyLatentImage", "Size of the picture", width=side, height=side, batch_size=batch)
    return made["LATENT"]


def sample(
    sheet: Sheet,
    steered: tuple[Link, Link, Link],
    start: Link,
    *,
    mini: bool = False,
    title: str | None = None,
    seed: int = 5,
    denoise: float = 1.0,
) -> Link:
    """The host's sampler as the authors have it, DDIM; steered: model, positive and negative."""
    model, positive, negative = steered
    sampled = sheet.node(
        "KSampler",
        title,
        model=model,
        positive=positive,
        negative=negative,
        latent_image=start,
        seed=seed,
        steps=20 if mini else 30,
        cfg=1.5 if mini else 7.5,
        sampler_name="ddim",
        scheduler="ddim_uniform",
        denoise=denoise,
    )
    return sampled["LATENT"]


def decode(sheet: Sheet, samples: Link, vae: Link) -> Link:
    """The picture of a latent."""
    return sheet.node("VAEDecode", samples=samples, vae=vae)["IMAGE"]


def save(sheet: Sheet, images: Link, name: str, title: str = "Result") -> None:
    """Save and show."""
    sheet.node("SaveImage", title, images=images, filename_prefix=name, size=(400, 460))


def show(sheet: Sheet, images: Link, title: str) -> None:
    """Show, and keep nothing."""
    sheet.node("PreviewImage", title, images=images, size=(240, 270))
