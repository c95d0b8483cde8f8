"""Fitting a network: losses, the Lightning module, checkpoints, the bundle. Needs the extra `train`."""

from models.errors import require_extra

require_extra("train", "training", "lightning", "segmentation_models_pytorch", "tensorboard", "torchmetrics")
