"""The demo on a picture from disk: its object, what was behind it, both depths, and what CnC-Mini makes of them.

Models are taken from a ComfyUI's `models` folder where they are there, else what comes with the repository.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .demo import OUTPUT, SIZE, opened, sheet
from .environment import SetupError, say
from .server import Server
from .workflow import Workflow

FOLDERS = ("saliency", "inpaint", "depth_estimation")
"""Where under `models` the pack looks for what a picture's layers need."""

SHIPPED = {
    "mask": ("mini", "alpha"),
    "background": ("telea", "navier-stokes"),
    "depth": ("mini", "mask-and-ground-plane"),
}
"""What comes with the repository, the one to use first; every other choice is a file of the user's."""

COLUMNS = ("picture", "mask", "background", "fg_depth", "bg_depth", "result")

EXPECT = (
    f"result: by CnC-Mini, which knows nothing but simple solids at {SIZE} x {SIZE}: expect the layout, "
    "not a photograph"
)


def run(
    comfy: Path,
    arguments: Sequence[str],
    picture: Path,
    background: Path | None,
    prompt: str,
    steps: int,
    seed: int,
    models: Path | None = None,
    output: Path = OUTPUT,
) -> Path:
    """Split the picture into its layers, compose it anew, and return the path of the sheet in `output`.

    background: put behind the object instead of what was there. models: those of `comfy` where not given.
    Raises SetupError for a file that is no picture, RuntimeError where the workflow fails.
    """
    given = {"picture": picture} | ({"background": background} if background else {})
    for path in given.values():
        _check(path)
    output.mkdir(exist_ok=True)
    say(f"starting the ComfyUI in {comfy}")
    with Server(comfy, extra_args=arguments) as server:
        server.link_models(models or comfy / "models", *FOLDERS)
        for name, path in given.items():
            shutil.copy(path, server.input / f"{name}{path.suffix}")
        files = {name: f"{name}{path.suffix}" for name, path in given.items()}
        flow, shown, used = workflow(server.object_info(), files, prompt, steps, seed)
        said = ", ".join(f"{name}: {what}" for name, what in used.items())
        say(f"used for {said}")
        done = server.run(flow.prompt)
        if done.error:
            raise RuntimeError(f"{picture}: {done.error}")
        cells = {name: opened(done.images(node_id)[0]) for name, node_id in shown.items()}
    for name, image in cells.items():
        image.save(output / f"{name}.png")
    path = output / "picture_sheet.png"
    sheet([(f"{said}. {EXPECT}", cells)], COLUMNS).save(path)
    say(EXPECT)
    return path


def workflow(
    info: dict[str, Any], files: dict[str, str], prompt: str, steps: int, seed: int
) -> tuple[Workflow, dict[str, str], dict[str, str]]:
    """The workflow; the node that shows each of COLUMNS; and what each of mask, background and depth is made by."""
    used = {
        "mask": _choice(info, "CnC_SalientMask", "estimator", SHIPPED["mask"]),
        "background": _choice(info, "CnC_InpaintBackground", "inpainter", SHIPPED["background"]),
        "depth": _choice(info, "CnC_DepthMap", "estimator", SHIPPED["depth"]),
    }
    flow = Workflow(info)
    mini = flow.add("CnC_LoadMini")
    texts = [flow.add("CLIPTextEncode", clip=mini.out("clip"), text=text).out() for text in (prompt, "")]
    picture = flow.add("LoadImage", image=files["picture"]).out()
    mask = flow.add("CnC_SalientMask", image=picture, estimator=used["mask"]).out()
    if "background" in files:
        background = flow.add("LoadImage", image=files["background"]).out()
        used["background"] = "the picture given"
    else:
        filled = flow.add("CnC_InpaintBackground", image=picture, mask=mask, inpainter=used["background"])
        background = filled.out()
    composed = flow.add(
        "CnC_Compose",
        **{name: mini.out(name) for name in ("model", "fusers", "clip_vision")},
        positive=texts[0],
        negative=texts[1],
        foreground=picture,
        background=background,
        mask=mask,
        depth=used["depth"],
    )
    latent = flow.add("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1)
    sampled = flow.add(
        "KSampler",
        **{name: composed.out(name) for name in ("model", "positive", "negative")},
        latent_image=latent.out(),
        seed=seed,
        steps=steps,
        cfg=1.5,
        sampler_name="ddim",
        scheduler="ddim_uniform",
        denoise=1.0,
    )
    links = {
        "picture": picture,
        "mask": flow.add("MaskToImage", mask=mask).out(),
        "background": background,
        "fg_depth": composed.out("fg_depth"),
        "bg_depth": composed.out("bg_depth"),
        "result": flow.add("VAEDecode", samples=sampled.out(), vae=mini.out("vae")).out(),
    }
    return flow, {name: flow.add("PreviewImage", images=link).id for name, link in links.items()}, used


def _choice(info: dict[str, Any], node: str, name: str, shipped: tuple[str, ...]) -> str:
    """A file of the user's where there is one, else what comes with the repository."""
    spec = info[node]["input"]["required"][name]
    options: list[str] = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
    return next((option for option in options if option not in shipped), shipped[0])


def _check(path: Path) -> None:
    try:
        with Image.open(path) as image:
            image.verify()
    except OSError as error:
        raise SetupError(f"{path} is no picture that can be read: {error}") from error
