"""Where weights come from: data cache, augmentation, losses, loops, folds, import and packing;
nothing here ships.
"""
