"""A finished store as a grid of COGs with a catalogue, as other programs open it."""
