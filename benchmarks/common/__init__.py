"""What every benchmark shares: result files that name what produced them, and measuring time and memory."""
