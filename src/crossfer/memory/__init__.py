"""What keeps the old in mind while a network learns the new: exemplars, penalties, merging, a memory file."""
