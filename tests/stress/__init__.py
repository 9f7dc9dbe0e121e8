"""Long tests of what a night may bring; short versions of them run with the others."""
