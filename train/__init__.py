"""Labels to bundles: chips from whole scenes, a loss, a loop, whole-scene scores. No room imports it."""
