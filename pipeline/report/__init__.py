"""One HTML page about a result, which needs nothing beside it."""
