import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import torch

from acouslic.errors import InputError
from acouslic.network import TrunkConfig
from phantom.look import Look
from phantom.render import Renderer
from phantom.truth import truth
from training.__main__ import main
from training.base import load_base
from training.import_fetalclip import feature_report, import_fetalclip
from training.options import StoredType

DEMO = Path(__file__).resolve().parents[1] / "resources" / "demo"
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 64, "patch_size": 8},
    "text_cfg": {
        "context_length": 117, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny-fetalclip.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    return path


@pytest.fixture
def state(config: Path) -> dict[str, torch.Tensor]:
    """A whole CLIP's random weights, as the published checkpoint has them."""
    torch.manual_seed(0)
    state = open_clip.create_model(config.stem).state_dict()
    return {
        name: tensor.clone().normal_(std=0.1) if tensor.ndim else tensor
        for name, tensor in state.items()
    }


def checkpoint(path: Path, state: dict[str, torch.Tensor], **more: object) -> Path:
    torch.save({"epoch": 20, "name": "FetalCLIP", "state_dict": state, **more}, path)
    return path


def test_the_import_tells_how_far_brightness_and_patches_move_the_features(
    config: Path,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = checkpoint(tmp_path / "weights.pt", state)
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        frame = rng.integers(0, 80, (281, 372), dtype=np.uint8)
        cv2.imwrite(str(images / f"{number}.png"), frame)
    with caplog.at_level("INFO"):
        import_fetalclip(path, tmp_path / "a", config=config, dtype="fp32", images=images)
        import_fetalclip(path, tmp_path / "b", config=config, dtype="fp32")
    told = [line for line in caplog.messages if "cosine" in line]
    assert "median of 3 frames" in told[0] and "median of 12 frames" in told[1]
    options = [line.split(":")[0] for line in caplog.messages if line.startswith("--")]
    assert options == 2 * ["--intensity fan", "--tokens registers", "--tokens fan"]


def test_a_trained_trunks_features_move_with_brightness_and_patches() -> None:
    renderer = Renderer(truth(900002, 0), Look.REALISTIC)
    scale, *lines = feature_report(DEMO, np.stack([renderer.frame(k) for k in (40, 60, 80)]))
    assert "after blocks 2, 4, 6, 8" in scale
    for line in lines:
        cosines = [float(text) for text in re.findall(r"-?\d\.\d+", line)]
        assert len(cosines) == 2 + 4
        assert all(cosine < 0.9995 for cosine in cosines), line
        # The least may be turned about: this trunk has learnt from brightness inside the fan alone.
        median, least, *tokens = cosines
        assert all(cosine > 0 for cosine in (median, *tokens)) and least > -1, line


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("is_zip", [True, False])
def test_the_imported_trunk_is_open_clips_own(
    config: Path, state: dict[str, torch.Tensor], tmp_path: Path, prefix: str, is_zip: bool
) -> None:
    path = tmp_path / "weights.pt"
    named = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({"state_dict": named}, path, _use_new_zipfile_serialization=is_zip)
    import_fetalclip(path, tmp_path / "base", config=config, dtype="fp32")
    theirs = open_clip.create_model(config.stem, pretrained=str(path)).eval()
    trunk_config, trunk, provenance = load_base(tmp_path / "base")
    assert trunk_config == TrunkConfig.read(config)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.encode_image(images)
        found = trunk.eval()(images)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert len(provenance["sha256"]) == 64 and provenance["licence"] == "CC BY-NC 4.0"


def test_half_precision_halves_the_file(
    config: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "weights.pt", state)
    sizes = []
    dtypes: tuple[StoredType, ...] = ("fp32", "fp16")
    for dtype in dtypes:
        import_fetalclip(path, tmp_path / "base", config=config, dtype=dtype, overwrite=True)
        sizes.append((tmp_path / "base" / "trunk.safetensors").stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_with_code_is_refused_and_not_run(
    config: Path, state: dict[str, torch.Tensor], tmp_path: Path, is_zip: bool
) -> None:
    proof = tmp_path / "it-ran"
    path = tmp_path / "weights.pt"
    content = {"state_dict": state, "extra": Malicious(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(InputError, match="would run code"):
        import_fetalclip(path, tmp_path / "base", config=config, dtype="fp32")
    assert not proof.exists() and not (tmp_path / "base").exists()
    pickle.loads(pickle.dumps(Malicious(proof))).close()
    assert proof.exists()  # the file would indeed have run


Write = Callable[[Path, dict[str, torch.Tensor]], None]


def write_text(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.write_text("<html>404</html>")


def write_truncated(path: Path, state: dict[str, torch.Tensor]) -> None:
    checkpoint(path, state)
    path.write_bytes(path.read_bytes()[:-2000])


def write_list(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save([torch.zeros(3)], path)


def write_without_one(path: Path, state: dict[str, torch.Tensor]) -> None:
    checkpoint(path, {name: value for name, value in state.items() if name != "visual.proj"})


def write_with_more(path: Path, state: dict[str, torch.Tensor]) -> None:
    checkpoint(path, {**state, "visual.extra": torch.zeros(1)})


def write_wider(path: Path, state: dict[str, torch.Tensor]) -> None:
    checkpoint(path, {**state, "visual.proj": torch.zeros(64, 48)})


def write_nothing(path: Path, state: dict[str, torch.Tensor]) -> None:
    pass


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (write_text, "cut short or something else|would run code"),
        (write_truncated, "cut short"),
        (write_list, "list of other content"),
        (write_without_one, "visual.proj is missing"),
        (write_with_more, "visual.extra is unknown"),
        (write_wider, r"visual.proj is \(64, 48\) instead of \(64, 32\)"),
        (write_nothing, "no file"),
    ],
)
def test_a_wrong_file_is_named(
    config: Path, state: dict[str, torch.Tensor], tmp_path: Path, write: Write, found: str
) -> None:
    write(tmp_path / "weights.pt", state)
    with pytest.raises(InputError, match=found):
        import_fetalclip(tmp_path / "weights.pt", tmp_path / "base", config=config, dtype="fp32")
    assert not (tmp_path / "base").exists()


def test_the_command_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["import-fetalclip", str(tmp_path / "none.pt"), "--output", str(tmp_path / "base")])
    assert code == 1
    assert capsys.readouterr().err.startswith("error: expected FetalCLIP_weights.pt; found no file")
