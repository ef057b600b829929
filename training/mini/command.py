"""`python -m training mini`: every stage of CnC-Mini, or one of them; and the models that it is measured against."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import torch

from . import export, stage_autoencoder, stage_diffusion, stage_encoders, stage_perception
from .cache import SceneCache
from .dataset import Dataset
from .finished import FinishedMini
from .layered_data import LayeredDataset
from .loop import Line, Loss, Pace, Plan, Training, run_together
from .scenes import SEEDS
from .stage_diffusion import ARMS, CONTINUED, FROZEN

SCENES = {"cpu": 12_000, "cuda": 100_000}
LAYERED = 0.75  # layered scenes for each two-solid one
BATCH_ON_A_CPU = 16
ENCODERS_END = 0.25  # of the minutes, where they are limited
RATE_FROM_A_START = 0.5  # of the plan's learning rate, where training goes on from finished files
FOLDER = Path(".cache/mini")
MODELS = Path("models/mini")
BASELINES = tuple(name for name in ARMS if name != "main")
ESTIMATORS = tuple(stage_perception.PLANS)


class Chain:
    """The stages of one folder; each finds there what earlier ones left, or else in the finished files."""

    def __init__(
        self,
        folder: Path,
        models: Path,
        *,
        device: str = "cpu",
        resume: bool = True,
        scenes: int = 0,
        share: float = 1,
        minutes: float | None = None,
        start: Path | None = None,
    ) -> None:
        self.runs, self.models, self.resume = folder / "runs", models, resume
        self._share, self._began, self._minutes = share, time.monotonic(), minutes
        self._start = start
        self.device = torch.device(device)
        self._folder, self._count = folder, scenes or SCENES[self.device.type]
        self._scenes: SceneCache | None = None
        self._data: Dataset | None = None

    @property
    def scenes(self) -> SceneCache:
        """The training scenes, rendered."""
        if self._scenes is None:
            self._scenes = SceneCache(self._folder, "train", self._count, self.device)
            self._scenes.fill()
        return self._scenes

    @property
    def data(self) -> Dataset:
        """Latents and embeddings of the scenes, by this folder's encoders or else the finished ones."""
        if self._data is None:
            if (self.runs / "encoders.pt").exists():
                autoencoder = stage_autoencoder.restore(self.runs, self.device)
                encoder = stage_encoders.restore(self.runs).image
            else:
                folder = self._start or self.models
                finished = FinishedMini.load(folder)
                if finished.image_encoder is None:
                    raise FileNotFoundError(f"{folder} holds no image_encoder.safetensors: run stage encoders")
                autoencoder, encoder = finished.autoencoder, finished.image_encoder
            self._data = Dataset(self.scenes, autoencoder.to(self.device), encoder.to(self.device))
            self._encoders = autoencoder, encoder
        return self._data

    def data_of(self, name: str) -> Dataset:
        """What an arm reads: with the layered scenes where it trains on them."""
        data = self.data
        if data.layered is None and any(recipe.layered for recipe in ARMS[name]):
            folder, count = self._folder / "layered", round(LAYERED * self._count)
            data.layered = LayeredDataset(folder, SEEDS["train"], count, *self._encoders, self.device)
        return data

    def _pace(self, until: float = 1.0) -> Pace:
        """The length of stages that are to end when this share of the minutes is over."""
        deadline = None if self._minutes is None else self._began + 60 * self._minutes * until
        return Pace(self._share, deadline)

    def _planned(self, plan: Plan, pace: Pace, start: Path | None = None) -> Plan:
        """A plan as this device runs it: with smaller batches on a CPU, and lower rates where it goes on from files."""
        batch = min(plan.batch, BATCH_ON_A_CPU) if self.device.type == "cpu" else plan.batch
        rate = plan.learning_rate * (1 if start is None else RATE_FROM_A_START)
        return replace(pace.of(plan), batch=batch, learning_rate=rate)

    def encoders(self) -> None:
        """Pictures to latents and back, and pictures to embeddings."""
        pace, scenes = self._pace(until=ENCODERS_END), self.scenes
        autoencoder, first, first_loss = stage_autoencoder.begin(
            scenes, self.runs, self.resume, self._planned(stage_autoencoder.PLAN, pace)
        )
        encoders, second, second_loss = stage_encoders.begin(
            scenes, self.runs, self.resume, self._planned(stage_encoders.PLAN, pace)
        )
        jobs = ((first, first_loss), (second, second_loss))
        run_together([Line(job[0].plan.steps, iter([job])) for job in jobs], pace)
        for training, _ in jobs:
            training.use_average()
            training.modules.requires_grad_(False)
        rows = torch.arange(min(512, scenes.ready), device=self.device)
        print("autoencoder:", stage_autoencoder.measure(autoencoder, scenes, rows[:64]), flush=True)
        print("encoders:", stage_encoders.measure(encoders, scenes, rows), flush=True)

    def _perception_line(self, pace: Pace, *kinds: str) -> Line:
        plans = {kind: stage_perception.PLANS[kind] for kind in kinds}

        def jobs() -> Iterator[tuple[Training, Loss]]:
            for kind, plan in plans.items():
                planned = self._planned(plan, pace, self._start)
                training, loss = stage_perception.begin(kind, self.scenes, self.runs, self.resume, planned, self._start)
                yield training, loss
                training.use_average()

        return Line(sum(pace.of(plan).steps for plan in plans.values()), jobs())

    def _arm_line(self, name: str, pace: Pace) -> Line:
        planned = partial(self._planned, pace=pace, start=self._start if name == "main" else None)
        start = self._start_of(name)
        finished = None if start is None else FinishedMini.load(start)
        jobs = stage_diffusion.run_arm(name, self.data_of(name), self.runs, self.resume, planned, finished)
        return Line(sum(pace.of(recipe.plan).steps for recipe in ARMS[name]), jobs)

    def _start_of(self, name: str) -> Path | None:
        """The finished files that an arm begins with: "main" where they are given, the arms of `FROZEN` and
        `CONTINUED` always; what else it is compared with begins from nothing."""
        if name in FROZEN or name in CONTINUED:
            return self._start or self.models
        return self._start if name == "main" else None

    def beside(self, *names: str) -> None:
        """Diffusion models and estimators, trained beside each other; "perception" is depth, then salience."""
        pace = self._pace()
        kinds = {"perception": ESTIMATORS, **{kind: (kind,) for kind in ESTIMATORS}}
        run_together(
            [
                self._perception_line(pace, *kinds[name]) if name in kinds else self._arm_line(name, pace)
                for name in names
            ],
            pace,
        )

    def export(self) -> None:
        """Write what has been reached to the models' folder."""
        export.write(self.runs, self.models, self.device, self._start)

    def everything(self) -> None:
        """CnC-Mini from nothing."""
        self.encoders()
        self.beside("main", "perception")
        self.export()

    def with_baselines(self) -> None:
        """CnC-Mini and all from nothing that it is compared with, beside each other; the others go to a folder each."""
        self.encoders()
        self.beside(*(name for name in ARMS if name not in FROZEN and name not in CONTINUED), "perception")
        self.export()
        self.export_baselines()

    def export_baselines(self) -> None:
        """Write each baseline that has run to a folder of its own beside the runs."""
        for name in BASELINES:
            if (self.runs / name).is_dir():
                export.write_arm(name, self.runs, self.runs.parent / "arms" / name, self._start_of(name))

    def run(self, names: Sequence[str]) -> None:
        """The named stages in order; diffusion models and estimators that follow each other run beside each other."""
        steps = self.steps()
        for is_step, group in groupby(names, key=lambda name: name in steps):
            if not is_step:
                self.beside(*group)
                continue
            for name in group:
                steps[name]()

    def steps(self) -> dict[str, Callable[[], None]]:
        """The stages that run on their own."""
        return {
            "all": self.everything,
            "with_baselines": self.with_baselines,
            "encoders": self.encoders,
            "export": self.export,
            "export_baselines": self.export_baselines,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--stage",
        nargs="+",
        choices=[*Chain(FOLDER, MODELS).steps(), *ARMS, "perception", *ESTIMATORS],
        default=["all"],
        help="parts of it, in order; models and estimators that follow each other run beside each other "
        "(default: CnC-Mini from nothing)",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="rendered scenes and unfinished runs")
    parser.add_argument("--out", type=Path, default=MODELS, help="where the finished files go")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scenes", type=int, default=0, help=f"how many; default {SCENES}")
    parser.add_argument("--share", type=float, default=1.0, help="this share of every stage's steps")
    parser.add_argument("--minutes", type=float, help="as many steps as fit into this time, all in all")
    parser.add_argument("--start", type=Path, help="a folder of finished files from which main and estimators go on")
    parser.add_argument("--resume", choices=("automatic", "never"), default="automatic")
    parser.add_argument("--threads", type=int, default=2)


def main(arguments: argparse.Namespace) -> None:
    """Run the command."""
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    chain = Chain(
        arguments.folder,
        arguments.out,
        device=arguments.device,
        resume=arguments.resume == "automatic",
        scenes=arguments.scenes,
        share=arguments.share,
        minutes=arguments.minutes,
        start=arguments.start,
    )
    chain.run(arguments.stage)
