"""Fitting a network: losses, the Lightning module, checkpoints, the bundle."""
