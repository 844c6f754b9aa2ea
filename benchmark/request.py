"""What one command asks the benchmark for; workers on other machines get it too."""

from dataclasses import dataclass, field
from pathlib import Path

from benchmark.options import Compute, Protocol, Schedule, WeightSource
from benchmark.systems import Plan
from dataset.backends import Backend
from training.options import Intensity, Tokens


@dataclass(frozen=True)
class Request:
    """What to benchmark."""

    systems: tuple[str, ...]
    """Names of systems."""
    trials: int
    """Trainings of each system."""
    protocol: Protocol
    """How systems are compared."""
    schedule: Schedule
    """How they are trained."""
    weights: WeightSource
    """What they begin with."""
    compute: Compute
    """What computes."""
    test_cache: Path | None = None
    """Folder of a cache of other cases to test on; None tests on a part of the one cache."""
    tokens: Tokens = "auto"
    """Patches that go through the trunk of `joint`, see `BenchmarkOptions`."""
    intensity: Intensity = "as-is"
    """What becomes of the frames' brightness, see `BenchmarkOptions`."""
    stand_ins: bool = False
    """Whether small networks take the places of the real ones."""
    note: str = ""
    """A remark on top of every table."""
    where: Backend = field(default_factory=Backend)
    """What starts the workers."""

    def plan(self, size_px: int) -> Plan:
        """What its systems are built for, on frames of this side."""
        return Plan(
            size_px,
            self.protocol,
            self.weights,
            self.stand_ins,
            self.tokens,
            intensity=self.intensity,
        )
