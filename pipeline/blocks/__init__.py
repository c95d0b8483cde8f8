"""One block of a scene through a network: wishes, what fits, what is refused, the answer. No dask, no store."""
