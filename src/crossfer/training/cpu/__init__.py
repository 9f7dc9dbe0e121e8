"""Layers and a descent that pass over memory less often, for a CPU."""
