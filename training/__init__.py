"""Where weights come from: import, augmentation, losses, training, folds, packing, the demo.

Nothing here ships.
"""
