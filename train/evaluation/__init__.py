"""Whole-scene evaluation, baselines, and the page of scores."""
