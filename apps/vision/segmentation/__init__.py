"""Domain-adaptive semantic segmentation (DAFormer)."""
