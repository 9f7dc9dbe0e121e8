"""Experiments on real clusters, set up on one machine; run by hand (CONTRIBUTING.md), not by `make test`."""
