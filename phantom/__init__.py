"""Simulated sweep stacks with known truth, in the layout of the challenge's training set."""
