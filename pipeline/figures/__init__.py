"""Areas, counts and sizes by scene, by cell or by zone."""
