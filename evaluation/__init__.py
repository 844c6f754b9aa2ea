"""How good the answers are: the challenge's own metrics, re-runs, comparisons and a report."""
