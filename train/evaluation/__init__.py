"""Whole-scene scores of a bundle, and how they are told: JSON, Markdown, one HTML page."""
