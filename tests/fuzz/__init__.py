"""Damaged and hostile inputs for everything that reads a file; see docs/trust.md."""
