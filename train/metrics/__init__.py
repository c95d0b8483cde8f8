"""Metrics from counts: confusion matrix, thresholds, boundaries, objects, calibration. Numbers only."""
