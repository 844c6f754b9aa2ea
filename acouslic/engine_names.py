"""What engines and their numbers are called; apart, so that `--help` needs no torch."""

from typing import Literal

# What computes a network, as an option says it.
EngineName = Literal["auto", "torch", "openvino"]
# The kinds of numbers that a network can be computed in, and what an option may say.
Precision = Literal["fp32", "bf16", "fp16"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
