"""The demo's foundation stage: what it is told of phantoms, and that it learns and resumes."""

import json
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from unrendered import store_unrendered

from acouslic.network import NetworkConfig, TrunkConfig
from acouslic.preprocess import to_grid
from dataset.cache import Cache, CachedCase, finish_cache, open_cache, read_facts
from phantom.dataset import case_name
from phantom.look import Look
from phantom.render import Renderer
from phantom.truth import Sight, truth
from training.augment import NONE, NUMBERS, augment, sampling_grid
from training.batches import Draw
from training.demo.anatomy import LANDMARKS, Anatomy, anatomy_of, case_numbers, draw, draw_abdomen
from training.demo.foundation import AnatomyFrames, AnatomyNet, FoundationTraining, MuonAndAdamW
from training.demo.frames import add_frames, choose_frames
from training.history import read_history
from training.options import Augmentation, Machine, Recipe
from training.runs import run

SEED, CASES, SIZE = 41, 2, 32
TRUNK = TrunkConfig(image_size=SIZE, patch_size=8, width=64, layers=4, embed_dim=32)
NETWORK = NetworkConfig(TRUNK, decoder_width=4, image_levels=4, intensity="fan")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("cache")
    names = [store_unrendered(folder, SEED, number, SIZE) for number in range(CASES)]
    finish_cache(folder, names, SIZE, simulated=True)
    return open_cache(folder)


def targets(
    cache: Cache, rows: list[int], uniform: torch.Tensor, config: Augmentation, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    whole = anatomy_of(cache.cases[0], SEED, 0)
    anatomy = Anatomy(*(part[rows] for part in whole))
    return draw(anatomy, sampling_grid(uniform, size, config))


def share(inner: torch.Tensor, body: torch.Tensor) -> float:
    """Of the pixels well inside a mask, how many the body covers."""
    return float(body[inner].mean())


def test_the_body_is_drawn_where_the_annotated_abdomen_is(cache: Cache) -> None:
    case = cache.cases[0]
    rows = np.flatnonzero(case.quality > 0).tolist()
    maps, _ = targets(cache, rows, torch.ones(len(rows), NUMBERS), NONE, SIZE)
    body = maps[:, list(LANDMARKS).index("body")]
    masks = torch.from_numpy(case.masks[case.mask_row[rows]] / 255.0)
    assert share(masks > 0.95, body) > 0.99
    assert (body.sum(dim=(1, 2)) < 1.6 * masks.sum(dim=(1, 2))).all()


def test_targets_go_wherever_augmentation_takes_their_frame(cache: Cache) -> None:
    case = cache.cases[0]
    rows = np.flatnonzero(case.quality > 0)[:6].tolist()
    masks = torch.from_numpy(np.array(case.masks[case.mask_row[rows]]))
    uniform = torch.rand(len(rows), NUMBERS, generator=torch.Generator().manual_seed(1))
    _, moved = augment(masks, masks, uniform, Augmentation())
    maps, _ = targets(cache, rows, uniform, Augmentation(), SIZE)
    still, _ = targets(cache, rows, uniform, NONE, SIZE)
    assert share(moved > 0.95, maps[:, 0]) > 0.99 > 0.95 > share(moved > 0.95, still[:, 0])


def test_height_is_small_on_optimal_frames_and_not_elsewhere(cache: Cache) -> None:
    case = cache.cases[0]
    optimal = np.flatnonzero(case.quality == 2).tolist()
    other = np.flatnonzero(case.quality == 0)[::20].tolist()
    assert optimal
    found = []
    for rows in (optimal, other):
        maps, height = targets(cache, rows, torch.ones(len(rows), NUMBERS), NONE, SIZE)
        body = maps[:, 0] > 0
        found.append(height[body].mean().item())
    assert found[0] < 0.4 < found[1]


def test_landmarks_of_the_standard_plane_are_seen_in_optimal_frames(cache: Cache) -> None:
    rows = np.flatnonzero(cache.cases[0].quality == 2).tolist()
    maps, _ = targets(cache, rows, torch.ones(len(rows), NUMBERS), NONE, 128)
    area = dict(zip(LANDMARKS, maps.sum(dim=(0, 2, 3)).tolist(), strict=True))
    assert area["stomach"] > 0 and area["vein"] > 0
    assert area["skull"] == 0 and area["stomach"] < area["body"]


class Stopped(FoundationTraining):
    """As if the machine went down at the start of the second epoch."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("stopped")


def test_the_abdomen_is_drawn_as_annotators_draw_it(cache: Cache) -> None:
    case = cache.cases[0]
    rows = np.flatnonzero(case.quality > 0)
    anatomy = Anatomy(*(part[rows] for part in anatomy_of(case, SEED, 0)))
    where = sampling_grid(torch.ones(len(rows), NUMBERS), SIZE, NONE)
    drawn = draw_abdomen(anatomy, where)
    masks = torch.from_numpy(case.masks[case.mask_row[rows]] / 255.0)
    assert ((drawn - masks).abs() > 0.6).float().mean() < 0.01
    assert (anatomy.sight == Sight.WELL).all()


def test_nothing_is_drawn_where_the_outline_is_a_matter_of_opinion(cache: Cache) -> None:
    anatomy = anatomy_of(cache.cases[0], SEED, 0)
    rows = torch.nonzero(anatomy.sight != Sight.WELL)[:, 0]
    where = sampling_grid(torch.ones(len(rows), NUMBERS), SIZE, NONE)
    assert len(rows) and not draw_abdomen(Anatomy(*(part[rows] for part in anatomy)), where).any()


def test_frames_of_a_phantom_are_chosen_by_what_they_show() -> None:
    known = truth(SEED, 0)
    chosen = choose_frames(known, 60)
    quality, sight = known.quality()[chosen], known.sight()[chosen]
    assert len(chosen) == 60 == len(set(chosen.tolist())) and known.tissue()[chosen].all()
    assert (quality > 0).sum() == min(round(0.42 * 60), (known.quality() > 0).sum())
    for kind in Sight:
        assert (sight[quality == 0] == kind).any()
    assert (choose_frames(known, 60) == chosen).all()


def test_chosen_frames_are_cached_as_of_the_whole_stack(tmp_path: Path) -> None:
    add = partial(add_frames, 0, folder=tmp_path, seed=SEED, look=Look.PLAIN, count=6, size=SIZE)
    add()
    name, known = case_name(SEED, 0), truth(SEED, 0)
    case = CachedCase(tmp_path / name, read_facts(tmp_path / name))
    assert case.frame_index.tolist() == choose_frames(known, 6).tolist()
    assert (case.quality == known.quality()[case.frame_index]).all()
    frame = int(case.frame_index[3])
    rendered = to_grid(Renderer(known).frame(frame)[None], SIZE)[0].numpy()
    assert (case.frames[3] == rendered).all()
    made = (tmp_path / name / "case.json").stat().st_mtime_ns
    add()
    assert (tmp_path / name / "case.json").stat().st_mtime_ns == made


def test_the_stage_learns_and_goes_on_where_it_was_stopped(cache: Cache, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, steps_per_epoch=4, batch_size=8, seed=3)
    machine = Machine(precision="fp32", accelerator="cpu")
    frames = AnatomyFrames(cache, SEED, case_numbers(SEED, CASES))

    def trained(folder: Path, kind: type[FoundationTraining] = FoundationTraining) -> AnatomyNet:
        torch.manual_seed(0)
        module = kind(AnatomyNet(NETWORK), recipe, frames, frames)
        run(folder, module, machine, identity={})
        return module.network

    straight = trained(tmp_path / "straight")
    rows = read_history(tmp_path / "straight")
    assert float(rows[1]["loss/total"]) < float(rows[0]["loss/total"])
    result = json.loads((tmp_path / "straight" / "result.json").read_text())
    assert {f"validation/{name}" for name in (*LANDMARKS, "score")} <= result.keys()
    with pytest.raises(RuntimeError, match="stopped"):
        trained(tmp_path / "stopped", Stopped)
    assert len(read_history(tmp_path / "stopped")) == 1
    resumed = trained(tmp_path / "stopped")
    for name, tensor in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor)


def test_the_stage_learns_in_half_precision_about_what_it_learns_in_full(cache: Cache) -> None:
    frames = AnatomyFrames(cache, SEED, case_numbers(SEED, CASES))
    uniform = np.full(NUMBERS, 0.5, np.float32)
    batch = frames.__getitems__([Draw(case, row, uniform) for case in range(2) for row in range(4)])
    torch.manual_seed(0)
    module = FoundationTraining(AnatomyNet(NETWORK), Recipe(), frames, frames).eval()
    expected = module.losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        losses = module.losses(batch)
    losses["total"].backward()  # type: ignore[no-untyped-call]
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=0.05, atol=0.05)


def test_the_optimiser_goes_on_from_its_saved_state_as_if_never_stopped() -> None:
    def network_and_optimiser() -> tuple[AnatomyNet, MuonAndAdamW]:
        torch.manual_seed(0)
        network = AnatomyNet(NETWORK)
        rates = {"matrix_rate": 1e-2, "rate": 1e-3, "weight_decay": 0.01}
        return network, MuonAndAdamW(network, **rates)

    def step(network: AnatomyNet, optimiser: MuonAndAdamW, number: int) -> None:
        frames = torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(number))
        output = network(255 * frames)
        optimiser.zero_grad()
        (output.landmarks.square().mean() + output.quality_logits.square().mean()).backward()
        optimiser.step()

    straight, first = network_and_optimiser()
    step(straight, first, 0)
    weights, state = deepcopy(straight.state_dict()), deepcopy(first.state_dict())
    step(straight, first, 1)
    resumed, second = network_and_optimiser()
    resumed.load_state_dict(weights)
    second.load_state_dict(state)
    step(resumed, second, 1)
    for name, tensor in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor)
    moved = [name for name in weights if not torch.equal(weights[name], resumed.state_dict()[name])]
    assert {"trunk.conv1.weight", "trunk.transformer.resblocks.3.mlp.c_fc.weight"} <= set(moved)
    assert (
        len(second.param_groups) == 2
        and second.param_groups[0] is second.optimisers[0].param_groups[0]
    )
