"""Results on disk: a store's shards, marks and metadata, its states, and the COG made of it. No network."""
