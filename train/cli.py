"""The command `swathe` whole: the verbs of `pipeline.cli`, and those that train and score. Imports nothing heavy."""

from pipeline.cli import cli, main
from pipeline.model_verbs import MODEL_VERBS

from .evaluate_verb import evaluate
from .train_verb import train

for verb in (train, evaluate, *MODEL_VERBS):
    cli.add_command(verb)

__all__ = ["cli", "main"]
