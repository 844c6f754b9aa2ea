"""The figures of arXiv 2507.22802 that the table shows beside our own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Means over the paper's 5 trials; None was not published."""

    f1: float
    """F1 of annotated or not."""
    f1_sd: float | None = None
    """Standard deviation of F1 over the trials."""
    accuracy: float | None = None
    """Share of frames that are called right."""
    precision: float | None = None
    """Share of frames called annotated that are."""
    recall: float | None = None
    """Share of annotated frames that are called so."""
    parameters: str | None = None
    """Number of trainable parameters, as printed."""


DENSENET = Published(0.7024, 0.028, 0.9516, 0.7805, 0.6420, "7.0 M")
EFFICIENTNET = Published(0.7253, 0.030, 0.9537, 0.7725, 0.6855, "4.0 M")
VGG = Published(0.7084, 0.021, 0.9510, 0.7580, 0.6671, "134 M")
SWIN = Published(0.7429, 0.039, 0.9565, 0.7864, 0.7113, "1.7 M")
DEIT = Published(0.7466, 0.014, 0.9554, 0.7619, 0.7363, "2.4 M")
VIT = Published(0.7506, 0.019, 0.9560, 0.7657, 0.7417, "2.4 M")
FETALCLIP_CLS = Published(0.7570, 0.007, 0.9575, 0.7782, 0.7397, "2.4 M")
FETALCLIP_SEG = Published(0.771)
