"""Simulated sweep stacks with known truth, in the layout of the challenge's training set.

Behind every number stands where it comes from. Three phrases mean always the same:

- "chosen by eye": a plausible guess that was kept when the frames looked right;
- "fitted to the training set's statistics": guessed, then changed until the table in
  docs/phantom.md came near the real set's;
- "fitted to two real frames": the gray levels and the grain of the two that were at hand.
"""
