"""Speech recognition beside the alternatives: cost of the encoders, and error rates at equal training time."""
