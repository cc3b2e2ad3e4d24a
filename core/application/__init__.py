"""What an application says of itself, and the verbs that need no more than that: training, and what is built on it."""

from core.application.base import Application, Measure, Scored, Trained
from core.application.rewrite import rewrite_run
from core.application.train import train, trained

__all__ = ["Application", "Measure", "Scored", "Trained", "rewrite_run", "train", "trained"]
