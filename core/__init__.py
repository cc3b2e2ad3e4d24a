"""Building blocks of efficient transformers, and the machinery to train and judge models made of them.

Importing ``core`` imports nothing else: each room (``core.attention``, ``core.training``, ...) is imported by name, so
that a user of one block pays for that block alone.
"""
