"""Connected components across blocks: labels, ids, region properties, the object table."""
