"""From files of several layouts to batches of source and target crops."""
