"""Methods against forgetting: exemplars, penalties, weight merging, memory files."""
