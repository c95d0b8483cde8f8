"""A training: network, losses, the loop, its folder, the bundle that comes out."""
