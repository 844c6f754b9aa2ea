"""What several tests need: a tiny network, a bundle of it, a stack that is quick to make."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scored_run import ScoredRun, write_run

from acouslic.bundle import save_bundle
from acouslic.challenge import CHALLENGE_FAN, FRAME_SHAPE, SPACING_MM
from acouslic.lora import LoraConfig
from acouslic.network import AbdomenNet, NetworkConfig, TrunkConfig
from acouslic.preprocess import normalise, to_grid
from acouslic.selection import SelectionConfig
from training.adapters import add_lora

TINY = NetworkConfig(TrunkConfig(32, 8, 64, 4, 64), decoder_width=4)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scored_run(tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    """A small run with its score; it takes some seconds, so tests share it and only add to it."""
    return write_run(tmp_path_factory.mktemp("scored_run"))


@pytest.fixture
def tiny_config() -> NetworkConfig:
    return TINY


def noise() -> np.ndarray:
    """(12, 562, 744) uint8, in the fan alone."""
    frames = np.random.default_rng(0).integers(1, 120, (12, *FRAME_SHAPE), dtype=np.uint8)
    return np.asarray(frames * CHALLENGE_FAN.mask())


def make_tiny_network() -> AbdomenNet:
    """Four small blocks with adapters that are not zero any more."""
    torch.manual_seed(0)
    network = AbdomenNet(TINY)
    add_lora(network.trunk, LoraConfig(rank=2, alpha=4))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return network


def open_its_eyes(network: AbdomenNet) -> None:
    """Have an untrained network mark a third of the fan, so that there is something to measure."""
    grid = to_grid(noise(), network.config.trunk.image_size)
    images = normalise(grid, network.config.intensity)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
        network.get_parameter("decoder.logit.1.bias").sub_(0.5)


@pytest.fixture
def tiny_network() -> AbdomenNet:
    return make_tiny_network()


@pytest.fixture(scope="session")
def tiny_bundle_whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, to be copied."""
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    network = make_tiny_network()
    open_its_eyes(network)
    save_bundle(
        folder,
        [network],
        name="tiny",
        selection=SelectionConfig(),
        lora=LoraConfig(rank=2, alpha=4),
        provenance={"simulated": True},
        card="a test's bundle\n",
    )
    return folder


@pytest.fixture
def tiny_bundle(tmp_path: Path, tiny_bundle_whole: Path) -> Path:
    return shutil.copytree(tiny_bundle_whole, tmp_path / "bundle")


@pytest.fixture
def frames() -> np.ndarray:
    """(12, 562, 744) uint8: six sweeps of two frames, the second one black."""
    frames = noise()
    frames[1::2] = 0
    return frames


@pytest.fixture
def write_stack(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array as the platform lays it out and returns the input folder."""

    def write(array: np.ndarray, *, spacing: float = SPACING_MM, is_vector: bool = False) -> Path:
        folder = tmp_path / "input" / "images" / "stacked-fetal-ultrasound"
        folder.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array, isVector=is_vector)
        image.SetSpacing((spacing,) * image.GetDimension())
        sitk.WriteImage(image, str(folder / "case.mha"), useCompression=True)
        return tmp_path / "input"

    return write
