"""The templates, as they are to be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .parts import (
    QUALITY,
    SCENE,
    SD_MODELS,
    STAND_IN,
    Models,
    decode,
    latent,
    mini,
    picture,
    prompts,
    sample,
    save,
    show,
    stable_diffusion,
)
from .sheet import Link, Model, Node, Sheet

SCRIBBLE = Model(
    "control_v11p_sd15_scribble_fp16.safetensors",
    "controlnet",
    "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
    "control_v11p_sd15_scribble_fp16.safetensors",
)
LORA = "your_lora.safetensors"


def compose(sheet: Sheet, models: Models, texts: tuple[Link, Link], title: str = "", **inputs: Any) -> Node:
    """The method in one node."""
    return sheet.node(
        "CnC_Compose",
        title or None,
        model=models.model,
        positive=texts[0],
        negative=texts[1],
        fusers=models.fusers,
        clip_vision=models.clip_vision,
        size=(320, None),
        **inputs,
    )


def steered(node: Node) -> tuple[Link, Link, Link]:
    """What a sampler takes from Compose."""
    return node["model"], node["positive"], node["negative"]


def quick_start() -> Sheet:
    """Two pictures and two exemplars on the Mini."""
    sheet = Sheet("01 Quick start with CnC-Mini")
    with sheet.group("1. Pictures: drop your own onto these"):
        front, back = picture(sheet, "In front: a picture of one thing", "cone"), picture(sheet, "Behind it", "cube")
        sheet.column()
        fg_style = picture(sheet, "Look of what is in front", "fg_style")
        bg_style = picture(sheet, "Look of what is behind", "bg_style")
    with sheet.group("2. Model and words"):
        models = mini(sheet)
        texts = prompts(sheet, models.clip, "")
        start = latent(sheet, 128)
    with sheet.group("3. Compose: drag on the pad"):
        composed = compose(
            sheet,
            models,
            texts,
            foreground=front,
            background=back,
            fg_style=fg_style,
            bg_style=bg_style,
            saliency="mini",
            depth="mini",
        )
    with sheet.group("4. Result"):
        images = decode(sheet, sample(sheet, steered(composed), start, mini=True), models.vae)
        sheet.column()
        save(sheet, images, "cnc_quick_start")
    with sheet.group("What it saw"):
        masked = sheet.node("MaskToImage", mask=composed["mask"])
        show(sheet, masked["IMAGE"], "Mask")
        show(sheet, composed["fg_depth"], "Depth of the thing in front")
        show(sheet, composed["bg_depth"], "Depth behind")
    sheet.read_me(
        "# Quick start\n"
        "Press **Run**. The thing of the first picture is put in front of the second picture; each layer takes "
        "the look of its exemplar.\n\n"
        "- Drag on the **pad** of *Compose and Conquer*: to the right the foreground follows its exemplar more "
        "(\u03bb foreground), upwards the background does (\u03bb background). Run again: only the sampler does.\n"
        "- Drop **your own pictures** onto the loaders. Right click on an exemplar and choose *Bypass*, or pull "
        "its link out, to go without it.\n"
        "- Right click on *Compose and Conquer*: **Swap layers** puts the back in front, **\u03bb grid** shows "
        "all strengths at once.\n"
        "- *Settings > Compose and Conquer*: run whenever a slider is let go.\n\n"
        "## Models\nNone to get. CnC-Mini comes with the pack. It knows simple solids at 128 x 128 and nothing "
        "else: it shows how things work. For real pictures take one of the templates for Stable Diffusion 1.5.",
        height=400,
    )
    return sheet


def whole_method() -> Sheet:
    """The paper's graph, every part a node of its own."""
    sheet = Sheet("02 The whole method on Stable Diffusion 1.5")
    with sheet.group("Models"):
        models = stable_diffusion(sheet)
    sheet.read_me(
        "# The whole method, part by part\n"
        "The graph of the paper with the authors' weights: two depth maps that are never fused into one (local "
        "fuser), an exemplar for each layer (global fuser), and a mask that keeps each exemplar to its layer "
        "(soft guidance).\n\n## Models\n" + SD_MODELS + "\nThe authors took masks by **U2-Net** and depth by "
        "**DPT-Large**. In the pack's folder:\n\n"
        "`python cnc.py fetch u2net-onnx` into `models/saliency`\n\n"
        "`python cnc.py fetch dpt-large` into `models/depth_estimation`\n\n"
        "Any other estimator in those folders is listed too.\n\n" + STAND_IN,
        height=520,
    )
    with sheet.group("Pictures: drop your own onto these"):
        front, back = picture(sheet, "In front: a picture of one thing", "cone"), picture(sheet, "Behind it", "cube")
        sheet.column()
        exemplars = picture(sheet, "Look of the front", "fg_style"), picture(sheet, "Look of the back", "bg_style")
    with sheet.group("Mask and depth"):
        mask = sheet.node("CnC_SalientMask", "The thing in front", image=front, estimator="u2net.onnx")["mask"]
        masked: dict[str, Any] = {"mask": mask}
        depths = [
            sheet.node(
                "CnC_DepthMap",
                title,
                image=image,
                estimator="dpt-large",
                version=version,
                preprocessing="release",
                **on,
            )["depth"]
            for title, image, version, on in (
                ("Depth of the thing", front, "v2", masked),
                ("Depth of the background", back, "v1", {}),
            )
        ]
    with sheet.group("Exemplars"):
        styles = [
            sheet.node("CLIPVisionEncode", title, clip_vision=models.clip_vision, image=image, crop="center")
            for title, image in zip(("Front's exemplar", "Back's exemplar"), exemplars, strict=True)
        ]
        tokens = sheet.node(
            "CnC_ApplyGlobalFuser",
            fusers=models.fusers,
            fg_style=styles[0]["CLIP_VISION_OUTPUT"],
            bg_style=styles[1]["CLIP_VISION_OUTPUT"],
        )
    with sheet.group("Words and depth"):
        texts = prompts(
            sheet, models.clip, SCENE + QUALITY, "longbody, lowres, bad anatomy, worst quality, low quality"
        )
        local = sheet.node(
            "CnC_ApplyLocalFuser",
            positive=texts[0],
            negative=texts[1],
            fusers=models.fusers,
            fg_depth=depths[0],
            bg_depth=depths[1],
            size=(340, None),
        )
    with sheet.group("Soft guidance"):
        guided = sheet.node(
            "CnC_SoftGuidance",
            model=models.model,
            tokens=tokens["tokens"],
            mask=mask,
            resize="release",
            size=(320, None),
        )
    with sheet.group("Result"):
        samples = sample(sheet, (guided["model"], local["positive"], local["negative"]), latent(sheet, 768))
        images = decode(sheet, samples, models.vae)
        sheet.column()
        save(sheet, images, "cnc_whole_method")
    return sheet


def two_photographs() -> Sheet:
    """The quick way on Stable Diffusion."""
    sheet = Sheet("03 Two photographs into one picture")
    with sheet.group("Photographs: drop your own onto these"):
        front, back = picture(sheet, "In front: a picture of one thing", "cone"), picture(sheet, "Behind it", "cube")
    with sheet.group("Models and words"):
        models = stable_diffusion(sheet)
        texts = prompts(sheet, models.clip, SCENE + QUALITY, "worst quality, low quality")
        start = latent(sheet, 512)
    with sheet.group("Compose"):
        composed = compose(
            sheet,
            models,
            texts,
            foreground=front,
            background=back,
            fg_style=front,
            bg_style=back,
            saliency="isnet.onnx",
            depth="Depth-Anything-V2-Small-hf",
        )
    with sheet.group("Result"):
        images = decode(sheet, sample(sheet, steered(composed), start), models.vae)
        sheet.column()
        save(sheet, images, "cnc_two_photographs")
    sheet.read_me(
        "# Two photographs into one picture\n"
        "The thing of the first photograph is put in front of the second one. Each photograph is also the "
        "exemplar of its layer, so that the picture keeps the look of both. Describe the picture you want in the "
        "prompt.\n\nThe thing sits where it sits in its own photograph. To move or scale it, put *Place Layer* "
        "before this.\n\n## Models\n" + SD_MODELS + "\nIn the pack's folder:\n\n"
        "`python cnc.py fetch isnet` into `models/saliency`\n\n"
        "`python cnc.py fetch depth-anything-v2-small` into `models/depth_estimation`\n\n" + STAND_IN,
        height=500,
    )
    return sheet


def drawn_depth() -> Sheet:
    """Depth maps from a paint program."""
    sheet = Sheet("04 Depth drawn by hand")
    with sheet.group("Drawings: near is bright"):
        front = picture(sheet, "Depth of the thing in front, black around it", "drawn_front")
        back = picture(sheet, "Depth of what is behind", "drawn_back")
    with sheet.group("Model and words"):
        models = mini(sheet)
        texts = prompts(sheet, models.clip, "red sphere in front of blue cube on grass , blue sky , noon")
        start = latent(sheet, 128)
    with sheet.group("Compose"):
        local = sheet.node(
            "CnC_ApplyLocalFuser",
            positive=texts[0],
            negative=texts[1],
            fusers=models.fusers,
            fg_depth=front,
            bg_depth=back,
            size=(320, None),
        )
    with sheet.group("Result"):
        samples = sample(sheet, (models.model, local["positive"], local["negative"]), start, mini=True)
        images = decode(sheet, samples, models.vae)
        sheet.column()
        save(sheet, images, "cnc_drawn_depth")
    sheet.read_me(
        "# Depth drawn by hand\n"
        "No picture to begin with: two depth maps from any paint program, grey, **near is bright**. The first "
        "shows the thing in front alone, on black; the second what is behind it, without the thing.\n\n"
        "- *fg_depth_scale* brings the thing nearer or takes it away.\n"
        "- *strength* says how closely the drawing is followed.\n"
        "- No exemplars are used here, so the words alone give the look.\n\n"
        "## Models\nNone to get: CnC-Mini comes with the pack. For Stable Diffusion 1.5 put *Load Checkpoint* and "
        "*Load Fusers* (`models/cnc/cnc_v1.ckpt`) in its place, and 512 x 512 into *Size of the picture*.",
        height=320,
    )
    return sheet


def restyled_object() -> Sheet:
    """A new look for one thing; all else stays, to the pixel."""
    sheet = Sheet("05 One object restyled")
    with sheet.group("Pictures: drop your own onto these"):
        given = picture(sheet, "The picture", "cube")
        style = picture(sheet, "New look of the object", "fg_style")
        sheet.column()
        side = 512
        fitted = sheet.node(
            "ImageScale",
            "To the size of the result",
            image=given,
            upscale_method="bicubic",
            width=side,
            height=side,
            crop="center",
        )["IMAGE"]
    with sheet.group("Models and words"):
        models = stable_diffusion(sheet)
        texts = prompts(sheet, models.clip, "checkered cube on grass , blue sky , noon" + QUALITY, "low quality")
        start = latent(sheet, side)
    with sheet.group("Compose"):
        composed = compose(
            sheet,
            models,
            texts,
            foreground=fitted,
            fg_style=style,
            bg_style=fitted,
            saliency="isnet.onnx",
            depth="Depth-Anything-V2-Small-hf",
            lambda_fg=1.5,
        )
    with sheet.group("Result"):
        images = decode(sheet, sample(sheet, steered(composed), start), models.vae)
        edge = sheet.node("CnC_RefineMask", "The object, a little wider", mask=composed["mask"], grow=4, feather=8)
        kept = sheet.node(
            "ImageCompositeMasked",
            "All else from the picture",
            destination=fitted,
            source=images,
            mask=edge["mask"],
            resize_source=True,
        )
        sheet.column()
        save(sheet, kept["IMAGE"], "cnc_restyled")
    sheet.read_me(
        "# One object restyled\n"
        "The object is found, keeps its depth and so its form, and takes the look of the exemplar. The "
        "background is inpainted for its depth alone; in the end only the object is taken from the new picture, "
        "all else stays as it was.\n\n- \u03bb foreground says how strongly.\n- Another object: connect a mask, from "
        "*Select Object* or painted in the mask editor.\n\n## Models\n" + SD_MODELS + "\nIn the pack's folder:\n\n"
        "`python cnc.py fetch isnet` into `models/saliency`\n\n"
        "`python cnc.py fetch depth-anything-v2-small` into `models/depth_estimation`\n\n" + STAND_IN,
        height=500,
    )
    return sheet


def lambda_grid() -> Sheet:
    """The paper's Figure 15 as a graph: three strengths of each exemplar, nine pictures in one."""
    sheet = Sheet("06 Lambda grid")
    cell = "A picture at two lambdas"
    inside = Sheet(cell)
    with inside.group(""):
        guided = inside.node("CnC_SoftGuidance")
        inside.column()
        samples = sample(inside, (guided["model"], guided["model"], guided["model"]), guided["model"], mini=True)
        inside.column()
        decoded = inside.node("VAEDecode", samples=samples)
    sampler = inside.nodes[1]
    sampler.links = {"model": guided["model"]}  # the rest comes from outside
    sheet.subgraph(
        inside,
        inputs={
            "model": guided["model"],
            "tokens": guided["tokens"],
            "mask": guided["mask"],
            "lambda_fg": guided["lambda_fg"],
            "lambda_bg": guided["lambda_bg"],
            **{name: sampler[name] for name in ("positive", "negative", "latent_image")},
            "vae": decoded["vae"],
        },
        outputs={"image": decoded["IMAGE"]},
    )
    with sheet.group("Pictures: drop your own onto these"):
        front, back = picture(sheet, "In front: a picture of one thing", "cone"), picture(sheet, "Behind it", "cube")
        sheet.column()
        exemplars = picture(sheet, "Look of the front", "fg_style"), picture(sheet, "Look of the back", "bg_style")
    with sheet.group("Model and words"):
        models = mini(sheet)
        texts = prompts(sheet, models.clip, "")
        start = latent(sheet, 128)
    with sheet.group("Mask, depth, exemplars: once for all nine"):
        mask = sheet.node("CnC_SalientMask", "The thing in front", image=front, estimator="mini")["mask"]
        fg_depth = sheet.node("CnC_DepthMap", image=front, estimator="mini", version="v2", mask=mask)["depth"]
        bg_depth = sheet.node("CnC_DepthMap", image=back, estimator="mini", version="v1")["depth"]
        sheet.column()
        styles = [
            sheet.node("CLIPVisionEncode", title, clip_vision=models.clip_vision, image=image, crop="center")
            for title, image in zip(("Front's exemplar", "Back's exemplar"), exemplars, strict=True)
        ]
        outputs = [style["CLIP_VISION_OUTPUT"] for style in styles]
        tokens = sheet.node("CnC_ApplyGlobalFuser", fusers=models.fusers, fg_style=outputs[0], bg_style=outputs[1])[
            "tokens"
        ]
        local = sheet.node(
            "CnC_ApplyLocalFuser",
            positive=texts[0],
            negative=texts[1],
            fusers=models.fusers,
            fg_depth=fg_depth,
            bg_depth=bg_depth,
        )
    sheet.row()
    with sheet.group("The two lambdas"):
        columns, rows = (
            [
                sheet.node("PrimitiveFloat", f"\u03bb {layer} {place}", value=value)["FLOAT"]
                for place, value in zip(places, (0.0, 1.0, 2.0), strict=True)
            ]
            for layer, places in (
                ("foreground", ("left", "middle", "right")),
                ("background", ("top", "middle", "bottom")),
            )
        )
    with sheet.group("Nine pictures"):
        given: dict[str, Any] = {
            "model": models.model,
            "tokens": tokens,
            "mask": mask,
            "latent_image": start,
            "vae": models.vae,
        }
        given |= {"positive": local["positive"], "negative": local["negative"]}
        cells = []
        for column in columns:
            cells.append([sheet.node(cell, **given, lambda_fg=column, lambda_bg=row)["image"] for row in rows])
            sheet.column()
    with sheet.group("Joined"):
        lines = []
        for left, middle, right in zip(*cells, strict=True):
            lines.append(_stitch(sheet, _stitch(sheet, left, middle, "right"), right, "right"))
            sheet.column()
        table = _stitch(sheet, _stitch(sheet, lines[0], lines[1], "down"), lines[2], "down")
    with sheet.group("Result"):
        save(sheet, table, "cnc_lambda_grid", "\u03bb foreground rightwards, \u03bb background downwards")
    sheet.read_me(
        "# Lambda grid\n"
        "The paper's Figure 15: the same picture with three strengths of each exemplar. Change a value under *The "
        "two lambdas* and a whole column or row follows.\n\nThe nine nodes are one **subgraph** used nine times: "
        "open one, and what you change in it changes in all.\n\nWithout all these nodes: right click on any "
        "*Compose and Conquer* or *Soft Guidance*, **\u03bb grid**.\n\n## Models\nNone to get: CnC-Mini comes with "
        "the pack.",
        height=320,
    )
    return sheet


def _stitch(sheet: Sheet, one: Link, other: Link, direction: str) -> Link:
    joined = sheet.node(
        "ImageStitch", image1=one, image2=other, direction=direction, match_image_size=True, spacing_width=4
    )
    return joined["IMAGE"]


def swapped() -> Sheet:
    """The same two pictures both ways round."""
    sheet = Sheet("07 Foreground and background swapped")
    with sheet.group("Pictures: drop your own onto these"):
        one, other = picture(sheet, "One picture", "cone"), picture(sheet, "The other", "cube")
    with sheet.group("Model and words"):
        models = mini(sheet)
        texts = [
            prompts(sheet, models.clip, f"{front} in front of {back} on grass , blue sky , noon")
            for front, back in (("yellow cone", "blue cube"), ("blue cube", "yellow cone"))
        ]
        start = latent(sheet, 128)
    with sheet.group("Both ways round"):
        composed = [
            compose(sheet, models, text, title, foreground=front, background=back, saliency="mini", depth="mini")
            for title, text, front, back in zip(
                ("The one in front", "The other in front"), texts, (one, other), (other, one), strict=True
            )
        ]
    with sheet.group("Results"):
        images = [decode(sheet, sample(sheet, steered(node), start, mini=True), models.vae) for node in composed]
        sheet.column()
        for image, name in zip(images, ("one", "other"), strict=True):
            save(sheet, image, f"cnc_{name}_in_front", f"The {name} in front")
    sheet.read_me(
        "# Foreground and background swapped\n"
        "The same two pictures with their roles exchanged, as in the paper's Figure 4. Where the two overlap, "
        "the one that is given as the foreground hides the other: their depth maps never become one.\n\n"
        "On a single *Compose and Conquer* the right-click entry **Swap layers** does this.\n\n"
        "## Models\nNone to get: CnC-Mini comes with the pack.",
        height=260,
    )
    return sheet


def _on_stable_diffusion(name: str, heading: str, words: str, change: Callable[..., object], prefix: str) -> Sheet:
    """Two pictures on Stable Diffusion, with `change` between the models and Compose or after it."""
    sheet = Sheet(name)
    with sheet.group("Pictures: drop your own onto these"):
        front, back = picture(sheet, "In front: a picture of one thing", "cone"), picture(sheet, "Behind it", "cube")
    with sheet.group("Models"):
        models = stable_diffusion(sheet)
    change(sheet, models, front, back, prefix)
    sheet.read_me(
        f"# {heading}\n{words}\n\n## Models\n{SD_MODELS}\nMask and depth come from the pack's *mini* here, which knows "
        "simple solids alone. For photographs choose an estimator of your own in *Compose and Conquer*: the "
        "template *Two photographs* says how to get them.\n\n" + STAND_IN,
        height=480,
    )
    return sheet


def _composed(sheet: Sheet, models: Models, texts: tuple[Link, Link], front: Link, back: Link) -> Node:
    pictures: dict[str, Any] = {"foreground": front, "background": back, "fg_style": front, "bg_style": back}
    return compose(sheet, models, texts, saliency="mini", depth="mini", **pictures)


def _lora(sheet: Sheet, models: Models, front: Link, back: Link, prefix: str) -> None:
    with sheet.group("LoRA and words"):
        lora = sheet.node(
            "LoraLoader", "A LoRA of yours", model=models.model, clip=models.clip, lora_name=LORA, size=(340, None)
        )
        tuned = Models(lora["MODEL"], lora["CLIP"], models.vae, models.clip_vision, models.fusers)
        texts = prompts(sheet, tuned.clip, SCENE + QUALITY, "low quality")
        start = latent(sheet, 512)
    with sheet.group("Compose"):
        composed = _composed(sheet, tuned, texts, front, back)
    with sheet.group("Result"):
        images = decode(sheet, sample(sheet, steered(composed), start), models.vae)
        sheet.column()
        save(sheet, images, prefix)


def _controlnet(sheet: Sheet, models: Models, front: Link, back: Link, prefix: str) -> None:
    with sheet.group("Words"):
        texts = prompts(sheet, models.clip, SCENE + QUALITY, "low quality")
        start = latent(sheet, 512)
    with sheet.group("Compose"):
        composed = _composed(sheet, models, texts, front, back)
    with sheet.group("Another ControlNet"):
        loaded = sheet.node("ControlNetLoader", control_net_name=SCRIBBLE.name, models=[SCRIBBLE], size=(340, None))[
            "CONTROL_NET"
        ]
        lines = sheet.node("Canny", "Lines of the picture behind", image=back, low_threshold=0.1, high_threshold=0.3)
        applied = sheet.node(
            "ControlNetApplyAdvanced",
            positive=composed["positive"],
            negative=composed["negative"],
            control_net=loaded,
            image=lines["IMAGE"],
            strength=0.5,
        )
        show(sheet, lines["IMAGE"], "Lines")
    with sheet.group("Result"):
        given = composed["model"], applied["positive"], applied["negative"]
        images = decode(sheet, sample(sheet, given, start), models.vae)
        sheet.column()
        save(sheet, images, prefix)


def _hires(sheet: Sheet, models: Models, front: Link, back: Link, prefix: str) -> None:
    with sheet.group("Words"):
        texts = prompts(sheet, models.clip, SCENE + QUALITY, "low quality")
        start = latent(sheet, 512)
    with sheet.group("Compose"):
        composed = _composed(sheet, models, texts, front, back)
    with sheet.group("At 512"):
        small = sample(sheet, steered(composed), start)
        show(sheet, decode(sheet, small, models.vae), "Small")
    with sheet.group("At one and a half times that"):
        larger = sheet.node("LatentUpscaleBy", samples=small, upscale_method="bicubic", scale_by=1.5)["LATENT"]
        images = decode(sheet, sample(sheet, steered(composed), larger, denoise=0.6), models.vae)
        sheet.column()
        save(sheet, images, prefix)


def with_lora() -> Sheet:
    """A LoRA under the fusers."""
    return _on_stable_diffusion(
        "08 With a LoRA",
        "With a LoRA",
        "Any LoRA for Stable Diffusion 1.5 goes between the checkpoint and *Compose and Conquer*, as it would without. "
        "Put yours into `models/loras` and choose it in *A LoRA of yours*.",
        _lora,
        "cnc_lora",
    )


def beside_controlnet() -> Sheet:
    """Another ControlNet after the fusers."""
    return _on_stable_diffusion(
        "09 Beside another ControlNet",
        "Beside another ControlNet",
        "ControlNets work before or after the fusers; what each adds is summed. Here the lines of the background "
        f"picture go to scribble: [{SCRIBBLE.name}]({SCRIBBLE.url}), into `models/controlnet`. Less *strength* leaves "
        "more to the depth maps.",
        _controlnet,
        "cnc_controlnet",
    )


def hires_fix() -> Sheet:
    """A second, larger sampling run with the same guidance."""
    return _on_stable_diffusion(
        "10 Hires fix",
        "Hires fix",
        "Sampled at 512, enlarged as a latent, sampled again at 768 with the same model and conditioning: depth maps "
        "and mask are fitted to the new size by themselves. *denoise* of the second sampler says how much may change.",
        _hires,
        "cnc_hires",
    )


def folder() -> Sheet:
    """Each picture of a folder before one background, one after the other, whatever their sizes."""
    sheet = Sheet("11 A folder of pictures")
    with sheet.group("Pictures"):
        front = sheet.node(
            "LoadImageDataSetFromFolder", "In front: each of a folder", folder="cnc_pictures", size=(320, None)
        )["images"]
        back = picture(sheet, "Behind them", "cube")
    with sheet.group("Model and words"):
        models = mini(sheet)
        texts = prompts(sheet, models.clip, "")
        start = latent(sheet, 128)
    with sheet.group("Mask and depth of each"):
        salience = sheet.node("CnC_SalienceMap", image=front, estimator="mini")["salience"]
        mask = sheet.node("CnC_RefineMask", "The thing in front", mask=salience)["mask"]
        fg_depth = sheet.node("CnC_DepthMap", "Its depth", image=front, estimator="mini", version="v2", mask=mask)
        sheet.column()
        bg_depth = sheet.node("CnC_DepthMap", "Depth behind", image=back, estimator="mini", version="v1")
        local = sheet.node(
            "CnC_ApplyLocalFuser",
            positive=texts[0],
            negative=texts[1],
            fusers=models.fusers,
            fg_depth=fg_depth["depth"],
            bg_depth=bg_depth["depth"],
        )
    with sheet.group("Look of each"):
        styles: dict[str, Any] = {
            name: sheet.node("CLIPVisionEncode", title, clip_vision=models.clip_vision, image=image, crop="center")[
                "CLIP_VISION_OUTPUT"
            ]
            for name, title, image in (("fg_style", "Look of each", front), ("bg_style", "Look behind", back))
        }
        tokens = sheet.node("CnC_ApplyGlobalFuser", fusers=models.fusers, **styles)["tokens"]
        guided = sheet.node("CnC_SoftGuidance", model=models.model, tokens=tokens, mask=mask)["model"]
    with sheet.group("Results"):
        samples = sample(sheet, (guided, local["positive"], local["negative"]), start, mini=True)
        images = decode(sheet, samples, models.vae)
        sheet.column()
        save(sheet, images, "cnc_folder", "One for each picture")
    sheet.read_me(
        "# A folder of pictures\n"
        "Put a folder of pictures into ComfyUI's `input` folder, press **R** so that it is listed, and choose it. "
        "Each picture becomes a foreground in turn, of whatever size, and each result is saved.\n\n"
        "The loader gives a list, which ComfyUI puts through the nodes one by one. It cannot do that with nodes that "
        "expand into others, *Compose and Conquer* among them: so the parts stand here.\n\n"
        "## Models\nNone to get: CnC-Mini comes with the pack. For Stable Diffusion 1.5 take the loaders of "
        "another template.",
        height=340,
    )
    return sheet


TEMPLATES: tuple[Callable[[], Sheet], ...] = (
    quick_start,
    whole_method,
    two_photographs,
    drawn_depth,
    restyled_object,
    lambda_grid,
    swapped,
    with_lora,
    beside_controlnet,
    hires_fix,
    folder,
)
"""All of them, in the order of their names."""
