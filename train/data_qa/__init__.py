"""Data checks before training: findings, leaks between splits, contact sheets."""
