"""Trained video codec: the frames of a variable-rate codec, coded given earlier frames, and their bitstream."""
