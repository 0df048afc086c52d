"Enhancers that leak no more than their guidance: joints, the blind system, its storage, the adversaries."
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privnb.compact import LEAST, from_bytes, from_difference, to_bytes, to_difference
from privnb.continuous import strength_code
from privnb.guidance import Guidance
from privnb.leakage import NAMES, Verdict, read_results, results_table, verdict
from privnb.leakfree import BOTTLENECK, BottleneckTrainer, by_side, from_joints
from privnb.minmax import MINMAX, Adversaries, FittedInverse, MinMaxTrainer, advantage, errors
from privnb.pose import Prediction
from privnb.skeleton import (GRID, LEVELS, PLACES, BottleneckEnhancer, in_square, rounded,
                             skeleton_bits, skeleton_maps)
from privnb.system import PrivacySystem, SystemConfig
from privnb.weights import WeightsError, shipped

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "nbs" / "results" / "leakfree"
few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
small = SystemConfig(generator="bottleneck", guidance=Guidance("pixelate", 12), portrait=64,
                     ranges={"pixelate": (4, 32), "blur": (2, 16)}, options={"width": 12},
                     pose={"width": 0.0625})


def crowd(count, side, seed=0, joints=17):
    made = torch.rand(count, joints, 3, generator=torch.Generator().manual_seed(seed))
    return made * torch.tensor([side, side, 1.0])


@pytest.fixture(scope="module")
def blind():
    torch.manual_seed(0)
    system = PrivacySystem(small).eval()
    for parameter in system.enhancer.parameters():  # an untrained one hardly draws
        parameter.data += 0.05 * torch.randn_like(parameter)
    return system


def seen(count, seed=0, side=96):
    "A prediction of that many people."
    boxes = torch.tensor([[10.0, 10, 60, 80]]).repeat(count, 1)
    return Prediction(boxes, torch.full((count,), 0.8), crowd(count, side, seed))


# joints

@few
@given(side=st.integers(8, 300), count=st.integers(0, 4), joints=st.sampled_from([16, 17]),
       seed=st.integers(0, 99))
def test_maps_of_any_size(side, count, joints, seed):
    maps = skeleton_maps([crowd(count, side, seed, joints), crowd(0, side, 0, joints)], side)
    cells = -(-side // GRID)
    assert maps.shape == (2, joints + 3, cells, cells) and not maps[1].any()
    assert torch.isfinite(maps).all() and 0 <= maps.min() and maps.max() <= 1


@few
@given(side=st.integers(8, 600), seed=st.integers(0, 99))
def test_rounding_is_bounded_and_happens_once(side, seed):
    people = crowd(3, side, seed)
    once = rounded(people, side)
    assert torch.equal(rounded(once, side), once)
    assert (once[..., :2] - people[..., :2]).abs().max() <= 0.51 * side / PLACES + 1e-3
    assert (once[..., 2] - people[..., 2]).abs().max() <= 0.51 / (LEVELS - 1)


def test_a_joint_outside_is_not_drawn():
    people = crowd(1, 64)
    people[..., 2] = 1
    people[0, :, 0] = torch.tensor([-500.0, 64.0, 1e9] * 6)[:17]
    assert not rounded(people, 64)[..., 2].any() and not skeleton_maps([people], 64).any()


def test_order_of_people_does_not_matter():
    people = crowd(3, 64)
    assert torch.equal(skeleton_maps([people], 64), skeleton_maps([people.flip(0)], 64))


def test_no_gradient_passes_the_joints():
    people = crowd(2, 64).requires_grad_()
    net = BottleneckEnhancer(width=12)
    y = net(torch.rand(1, 3, 64, 64), [people], strength_code("blur", 4, 64))
    y.sum().backward()
    assert people.grad is None and net.read.weight.grad.abs().sum() > 0


def test_only_people_with_a_joint_inside_count():
    people = torch.zeros(2, 17, 3)
    people[0, 3] = torch.tensor([30.0, 40, 1])
    people[1, :, 0], people[1, :, 2] = 500, 1
    inside = in_square(people, torch.tensor([0.5, 1.0]), torch.tensor([20, 20, 60, 60]), 80)
    assert len(inside) == 1 and inside[0, 3].tolist() == [20, 40, 0.5]


def test_bits():
    assert skeleton_bits() == 17 * 22 and skeleton_bits(16) == 16 * 22


# the enhancer

@pytest.mark.parametrize("side", [8, 30, 64, 100, 288, 289, 600])
def test_any_side(side):
    x = torch.rand(2, 3, side, side)
    net = BottleneckEnhancer(width=12).eval()
    with torch.no_grad():
        y = net(x, [crowd(1, side), crowd(0, side)], strength_code("pixelate", 8, side))
    assert y.shape == x.shape and torch.isfinite(y).all()


@pytest.mark.parametrize("shape, people", [((1, 6, 32, 32), 1), ((1, 3, 32, 40), 1), ((3, 32, 32), 1),
                                           ((2, 3, 32, 32), 1)])
def test_wrong_input_is_named(shape, people):
    with pytest.raises(ValueError, match="^(x|people): "):
        BottleneckEnhancer(width=12)(torch.rand(shape), [crowd(1, 32)] * people)


def test_empty_list_of_people_is_named():
    with pytest.raises(ValueError, match="^people: "):
        skeleton_maps([], 32)


@few
@given(seed=st.integers(0, 999))
def test_two_portraits_of_one_guidance_give_one_picture(blind, seed):
    "The data-processing inequality, bit for bit."
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    block, people = 4, [crowd(2, 64, seed)]
    cells = torch.nn.functional.pixel_unshuffle(x, block).unflatten(1, (3, -1)).flip(2)
    other = torch.nn.functional.pixel_shuffle(cells.flatten(1, 2), block)
    one, two = (blind.at("pixelate", 4).enhance_portraits(p, people=people) for p in (x, other))
    if torch.equal(one[0], two[0]):  # means of a cell may differ in the last bit before rounding
        assert torch.equal(one[1], two[1])
    assert not torch.equal(x, other)
    moved = blind.at("pixelate", 4).enhance_portraits(x, people=[crowd(2, 64, seed + 1)])[1]
    assert not torch.equal(moved, one[1])


@pytest.mark.parametrize("side", [64, 320, 608])  # above 288 the drawing is made at a part of the size
def test_the_receiver_makes_the_same_picture(blind, side):
    x, people = torch.rand(2, 3, side, side), [crowd(1, side), crowd(3, side, 1)]
    with torch.no_grad():
        guided, made = blind.enhance_portraits(x, rounded=False, people=people)
    again, size = from_joints(blind.enhancer, guided, people, blind.code(side)["code"])
    assert torch.equal(made, again) and size == -(-4 * skeleton_bits() // 8)


# the system

def test_a_blind_system_has_no_recoverer(blind, tmp_path):
    assert blind.blind and blind.recoverer is None
    blind.save(tmp_path)
    assert not (tmp_path / "recoverer.safetensors").exists()
    again = PrivacySystem.load(tmp_path)
    assert again.recoverer is None and again.config == blind.config
    with pytest.raises(WeightsError, match="--key"):
        PrivacySystem.load(tmp_path, recoverer=True)
    (tmp_path / "recoverer.safetensors").write_bytes(b"stray")
    assert PrivacySystem.load(tmp_path).recoverer is None


def test_portraits_of_several_sizes_get_their_own_people(blind):
    images = torch.rand(2, 3, 96, 128)
    boxes = torch.tensor([[5.0, 5, 40, 90], [60, 20, 90, 60], [10, 10, 60, 80]])
    index, found = torch.tensor([0, 0, 1]), [seen(2, 1), seen(1, 2)]
    with torch.no_grad():
        _, people = blind.enhance_batch(images, boxes, index, found=found)
        for k in range(3):
            mine = images[index[k]:index[k] + 1]
            _, one = blind.enhance_batch(mine, boxes[k:k + 1], torch.tensor([0]),
                                         found=[found[index[k]]])
            assert (one.enhanced[0] - people.enhanced[k]).abs().max() < 1.5 / 255


def test_a_photograph_passes(blind, monkeypatch):
    monkeypatch.setattr(PrivacySystem, "estimate", lambda self, image, confidence=0.25: seen(1))
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    result = blind.enhance(image)
    x0, y0, x1, y1 = np.clip(result.record["squares"][0], 0, [128, 96] * 2)
    outside = np.ones((96, 128), bool)
    outside[y0:y1, x0:x1] = False
    assert result.people == 1 and (result.image[outside] == image[outside]).all()
    assert (result.image[~outside] != result.guided[~outside]).any()


def test_nobody_found_leaves_nobody_undrawn(blind):
    "Given boxes are covered by their guidance though the estimator saw no one in them."
    image = np.full((96, 128, 3), 90, np.uint8)
    result = blind.enhance(image, np.array([[10, 10, 60, 80]]))
    assert result.people == 1 and not result.record["filled"]


def test_an_enhancer_that_fails_is_filled(blind, monkeypatch):
    monkeypatch.setattr(BottleneckEnhancer, "forward",
                        lambda self, x, people, code=None: x * torch.nan)
    result = blind.enhance(np.zeros((96, 128, 3), np.uint8), np.array([[10, 10, 60, 80]]))
    assert result.record["filled"] and not result.record["squares"]


def test_export_says_what_it_cannot(blind, tmp_path):
    from privnb.export import export_system
    with pytest.raises(ValueError, match="joints"):
        export_system(blind, tmp_path)
    assert not list(tmp_path.iterdir())


# storage as a difference

@few
@given(shape=st.sampled_from([(8, 8), (5, 13), (4, 3, 3, 3), (70, 1)]), seed=st.integers(0, 99),
       away=st.floats(0.001, 1.0))
def test_a_difference_comes_back_within_a_step(shape, seed, away):
    generator = torch.Generator().manual_seed(seed)
    base = {"w": torch.randn(shape, generator=generator), "b": torch.randn(7, generator=generator)}
    near = {name: value + away * torch.randn(value.shape, generator=generator)
            for name, value in base.items()}
    kept = to_difference(near, base)
    back = from_difference(kept, base)
    assert back["w"].shape == shape and (back["b"] - near["b"]).abs().max() < 1e-2
    if near["w"].numel() >= LEAST:
        assert kept["w"].numel() == -(-near["w"].numel() // 2)
        error = (back["w"] - near["w"]).flatten(1).square().mean(1).sqrt()
        largest = (near["w"] - base["w"]).flatten(1).abs().amax(1)
        assert (error <= 0.51 * largest / 7 + 1e-3).all()


def test_a_matrix_without_a_relative_is_stored_in_bytes():
    near, base = {"w": torch.randn(8, 16)}, {"w": torch.randn(8, 15), "other": torch.randn(8, 16)}
    kept = to_difference(near, base)
    assert kept["w"].dtype == torch.int8
    assert torch.equal(from_difference(kept, {})["w"], from_bytes(to_bytes(near))["w"])


@pytest.mark.parametrize("base", [{}, {"w": torch.zeros(8, 15)}])
def test_a_missing_relative_is_named(base):
    kept = to_difference({"w": torch.randn(8, 16)}, {"w": torch.randn(8, 16)})
    with pytest.raises(ValueError, match="^base: "):
        from_difference(kept, base)


def test_a_system_stored_beside_its_relative(tmp_path, monkeypatch):
    config = replace(small, pose={"width": 0.1875})
    system = PrivacySystem(config).eval()
    near = PrivacySystem.load("single", recoverer=False).pose
    system.pose.load_state_dict(near.state_dict())
    system.save(tmp_path, compact=True, base="pose.safetensors")
    again = PrivacySystem.load(tmp_path).pose.state_dict()
    for name, value in system.pose.state_dict().items():
        if value.is_floating_point():
            error, size = ((v.square().mean().sqrt()) for v in (again[name] - value, value))
            assert error <= 0.05 * size + 1e-3, name
    whole = shipped("pose.safetensors").stat().st_size
    assert (tmp_path / "pose.safetensors").stat().st_size < 0.3 * whole
    other = tmp_path / "other"
    other.mkdir()
    (other / "pose.safetensors").write_bytes(shipped("pose.safetensors").read_bytes()[:-1] + b"\1")
    monkeypatch.setattr("privnb.weights.shipped", lambda name="": other / name)
    with pytest.raises(WeightsError, match="differences to other weights"):
        PrivacySystem.load(tmp_path)


# training

def tiny(config, **changes):
    return replace(config, steps=4, batch=2, rehearse=0, scenes=6, sizes=(96,), people=(1, 2), every=2,
                   pretrained="", system=replace(config.system, pose={"width": 0.0625}), **changes)


@pytest.mark.parametrize("config, trainer", [(BOTTLENECK, BottleneckTrainer), (MINMAX, MinMaxTrainer)])
def test_resumed_is_uninterrupted(tmp_path, config, trainer, monkeypatch):
    monkeypatch.setattr(MinMaxTrainer, "life", 2)
    whole = trainer(tiny(config), tmp_path / "whole", progress=False).train()
    trainer(tiny(config), tmp_path / "parts", progress=False).train(until=2)
    parts = trainer(tiny(config), tmp_path / "parts", progress=False)
    rest = parts.train()
    assert parts.step == 4 and parts.system.recoverer is None

    def losses(lines):
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    assert losses(rest) == losses(whole[2:])
    history = (tmp_path / "parts" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in history] == [1, 2, 3, 4]


def test_the_camera_is_not_trained(tmp_path):
    run = BottleneckTrainer(tiny(BOTTLENECK), tmp_path, progress=False)
    before = {k: v.clone() for k, v in run.reference.state_dict().items()}
    enhancer = {k: v.clone() for k, v in run.system.enhancer.state_dict().items()}
    run.train(until=1)
    assert all(torch.equal(before[k], v) for k, v in run.reference.state_dict().items())
    assert any(not torch.equal(enhancer[k], v)
               for k, v in run.system.enhancer.state_dict().items())


def test_a_restart_touches_one_adversary(tmp_path):
    run = MinMaxTrainer(tiny(MINMAX), tmp_path, progress=False)
    run.train(until=1)
    before = {k: v.clone() for k, v in run.critics.state_dict().items()}
    state = run.optimisers["critics"].state
    known = sum(bool(state.get(p)) for p in run.critics.parameters())
    run.restart(1)
    changed = {k.split(".")[0] + k.split(".")[1] for k, v in run.critics.state_dict().items()
               if not torch.equal(before[k], v)}
    assert changed == {"against1"}
    mine = list(run.critics.against[1].parameters())
    assert not any(p in state for p in mine)
    assert sum(bool(state.get(p)) for p in run.critics.parameters()) == known - len(mine)


def test_mean_by_side_counts_portraits():
    lists = [[torch.full((3, s, s), float(v)) for s, v in ((8, 1), (4, 5), (8, 3))]]
    assert float(by_side(lambda x: x.mean(), *lists)) == pytest.approx(3)


# adversaries

@few
@given(one=st.floats(1e-4, 1), two=st.floats(1e-4, 1))
def test_advantage_is_decibels_above_the_counterpart(one, two):
    found = advantage(torch.tensor(one), torch.tensor(two))
    assert float(found) == pytest.approx(max(0, 10 * np.log10(two / one)), abs=1e-3)


@pytest.mark.parametrize("kind", ["pixelate", "blur"])
def test_a_fitted_inverse_learns_each_kind_apart(kind):
    other = {"pixelate": "blur", "blur": "pixelate"}[kind]
    x, net = torch.rand(6, 3, 32, 32), FittedInverse()
    told, foreign = (strength_code(k, 4, 32) for k in (kind, other))
    y = 0.5 * x + 0.25
    assert torch.equal(net(y, y, told), y)
    net.learn(y, x, told)
    assert (net(y, y, told) - x).abs().mean() < 0.02
    assert torch.equal(net(y, y, foreign), y)


def test_a_fitted_inverse_forgets():
    x, net, told = torch.rand(6, 3, 32, 32), FittedInverse(memory=0.5), strength_code("blur", 4, 32)
    net.learn(1 - x, x, told)
    for _ in range(20):
        net.learn(x, x, told)
    assert (net(x, x, told) - x).abs().mean() < 0.01


def test_leaks_pull_at_the_picture_only():
    system = PrivacySystem(replace(MINMAX.system, pose={"width": 0.0625}), recoverer=False)
    x = list(torch.rand(4, 3, 32, 32))
    a = [p.mean((1, 2), keepdim=True).expand_as(p) for p in x]
    y = [(0.9 * p + 0.1 * q).requires_grad_() for p, q in zip(a, x)]
    crowd = Adversaries(1)
    assert float(crowd(([], [], [], system)).detach()) == 0
    crowd((x, a, y, system))
    leaks = crowd.leak(x, a, y, system)
    assert leaks.shape == (2,) and leaks[-1] > 1
    leaks.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in y)
    same = crowd.leak(x, a, a, system)
    assert same.shape == (2,)
    assert errors([crowd.plain[0]], a, x, system).shape == (1,)


# the comparison

@pytest.mark.parametrize("figures, closed, passed", [
    ((1.0, 5.0, 2.0), True, True), ((1.01, 0, 0), False, False), ((0, 5.1, 0), False, False),
    ((0, 0, 2.1), True, False), ((-3.0, -9.0, -4.0), True, True)])
def test_verdicts_at_the_limits(figures, closed, passed):
    one = Verdict(*figures)
    assert (one.closed, one.passed) == (closed, passed)


def stored(name):
    return json.loads((RESULTS / name).read_text())


def test_the_attackers_were_equal():
    rows = stored("attack_0.json")["rows"]
    assert {(row["system"], row["guidance"]) for row in rows} == {
        (name, kind) for name in NAMES for kind in ("pixelate", "blur")}
    assert {row["radius"] for row in rows if row["guidance"] == "pixelate"} == {12}
    assert {row["radius"] for row in rows if row["guidance"] == "blur"} == {8}


def test_results_state_where_they_come_from():
    for name in set(NAMES) - {"guidance"}:
        content = stored(f"{name}.json")
        assert {"commands", "seed", "steps", "hours", "machine", "date", "rows"} <= set(content)
        assert content["history"][-1]["step"] == content["steps"]
    assert {"command", "plan", "seed", "machine", "date"} <= set(stored("attack_0.json"))
    assert not [p for p in RESULTS.glob("*.json") if "/home/" in p.read_text() or str(Path.cwd()) in p.read_text()]


def test_the_notebook_shows_the_figures_of_the_files():
    book = json.loads((ROOT / "nbs" / "19b_leakage.ipynb").read_text())
    shown = ["".join(output["data"]["text/markdown"]) for cell in book["cells"]
             for output in cell.get("outputs", []) if "text/markdown" in output.get("data", {})]
    assert results_table(read_results(RESULTS)) in shown


def test_the_verdict_is_that_of_the_rows():
    rows = read_results(RESULTS)
    for (name, kind), row in rows.items():
        if name != "guidance":
            plain = rows["guidance", kind]
            assert row["verdict"] == verdict(row, plain, row)
            assert row["verdict"].inversion == row["psnr"] - plain["psnr"]


def test_what_ships_is_what_was_trained():
    system, content = PrivacySystem.load("leakfree"), stored("bottleneck.json")
    assert system.blind and system.notes["steps"] == content["steps"]
    assert system.notes["train"]["seed"] == content["seed"]
    assert not (shipped("leakfree") / "recoverer.safetensors").exists()
    assert system.config.ranges == {"pixelate": (4, 32), "blur": (2, 16)}
    card = (shipped("leakfree") / "CARD.md").read_text()
    assert all(f"{row['ap50_p']:.2f}" in card for row in content["rows"])


def test_the_shipped_system_on_the_command_line(tmp_path):
    from privnb.cli import main
    from privnb.images import load_image, save_image
    from privnb.scenes import make_scene

    scene = make_scene(7, 3, size=192, people=(2, 2), split="test")
    save_image(scene.image, tmp_path / "scene.png")
    assert main(["keys", "new", "--out", str(tmp_path / "keys"), "--no-passphrase"]) == 0
    (public,) = (tmp_path / "keys").glob("*.pub")
    (private,) = [p for p in (tmp_path / "keys").iterdir() if p.suffix != ".pub"]
    command = ["enhance", str(tmp_path / "scene.png"), "--system", "leakfree", "--out",
               str(tmp_path / "out"), "--seal-to", str(public), "--guidance", "blur", "--radius", "5"]
    assert main(command) == 0
    out = tmp_path / "out" / "scene.png"
    assert (load_image(out) != scene.image).any()
    assert main(["recover", str(out), "--system", "leakfree", "--out", str(tmp_path / "back")]) == 1
    back = ["recover", str(out), "--key", str(private), "--out", str(tmp_path / "back")]
    assert main(back) == 0
    assert (load_image(tmp_path / "back" / "scene.png") == scene.image).all()
