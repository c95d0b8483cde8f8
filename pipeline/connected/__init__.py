"""Connected components across blocks: labelled in each, joined on a tree of rectangles."""
