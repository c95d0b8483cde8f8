"""Zonal statistics: class areas, object counts and sizes, for a scene, cells or zones."""
