"""Samples, and what is to be scored on them, into counts; block by block through the pipeline."""
