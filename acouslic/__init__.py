"""What ships: a stack of frames in, the abdominal circumference out, one file a stage."""

__version__ = "0.2.0"
