"""Speech recognition: words, with times and confidences, from recordings of one speaker at a time."""
