"""One streamed pass over samples: statistics of bands, counts of classes, where they lie."""
