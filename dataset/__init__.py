"""The challenge's training set: its files, their checks, the training cache, folds, truth."""
