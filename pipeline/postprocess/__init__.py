"""Cleaning class maps: thresholds, morphology, sieve of small objects and holes; durable or lazy."""
