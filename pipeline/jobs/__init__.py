"""Block jobs: a rolling window of Dask tasks, into a store, resumably, with progress."""
