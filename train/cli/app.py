"""The whole command `swathe`: the verbs of `pipeline.cli.app`, and those that train and score."""

from pipeline.cli.app import cli, main
from pipeline.cli.models import MODEL_VERBS

from .evaluate import evaluate
from .train import train

for verb in (train, evaluate, *MODEL_VERBS):
    cli.add_command(verb)

__all__ = ["cli", "main"]
