"""What a CPU does in fewer passes over memory: the same layers and the same descent, but for rounding."""
