"""Training: settings, the plan of turns, the loop, checkpoints and logs."""

from focus.train.checkpoint import (
    Checkpoint,
    Header,
    Networks,
    Trained,
    export,
    load_checkpoint,
    load_trained,
    save_checkpoint,
    shipped_checkpoint,
)
from focus.train.config import Settings
from focus.train.run import train
from focus.train.schedule import Turn, plan
from focus.train.scores import Prediction
from focus.train.sources import DataSource, PhotoSource, SyntheticSource
from focus.train.trainer import Trainer

__all__ = [
    "Checkpoint",
    "DataSource",
    "Header",
    "Networks",
    "PhotoSource",
    "Prediction",
    "Settings",
    "SyntheticSource",
    "Trained",
    "Trainer",
    "Turn",
    "export",
    "load_checkpoint",
    "load_trained",
    "plan",
    "save_checkpoint",
    "shipped_checkpoint",
    "train",
]
