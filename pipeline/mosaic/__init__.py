"""Many scenes as one: a target grid, the scenes that lie on it, and how they are put together."""
