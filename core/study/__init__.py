"""Questions answered by many runs: does a switch help, which settings are best."""
