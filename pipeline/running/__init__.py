"""Any verb's blocks over Dask into a store, durable or lazy; and segmenting, the first of these verbs."""
