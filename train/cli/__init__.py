"""The verbs that train and score, and the whole command `swathe`."""
