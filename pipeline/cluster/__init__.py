"""Clusters and their workers: reached or started, checked, watched."""
