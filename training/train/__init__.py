"""Training the fusers: `train_stage(TrainConfig(stage="local", ...))`, or `python -m training train`."""

from .config import TrainConfig
from .loop import Result, Trainer, TrainingInterrupted, TrainingStopped, train_stage

__all__ = ["Result", "TrainConfig", "Trainer", "TrainingInterrupted", "TrainingStopped", "train_stage"]
