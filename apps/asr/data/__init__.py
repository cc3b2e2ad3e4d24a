"""Recordings and transcripts on disk to utterances, utterances to batches; and whatever is wrong with them."""
