"The two sides of a joint step: means over portraits, and what each term may change."

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.config import preset
from privnb.datasets import collate
from privnb.generators import PatchDiscriminator
from privnb.scenes import make_scene
from privnb.steps import CriticStep, JointStep, mean_over, stacks_by_side
from privnb.system import PrivacySystem

SIDES = st.lists(st.sampled_from([2, 4, 6]), max_size=9)


def parts(**changes):
    "A fresh system, its critics, and the step over both."
    torch.manual_seed(0)
    config = preset("smoke", "pixelate", 12, **changes)
    system = PrivacySystem(config.system).train()
    critics = torch.nn.ModuleDict({k: PatchDiscriminator(**config.critic) for k in "yx"})
    return system, critics, JointStep(system, critics, config)


def scenes(people=(1, 1)):
    return collate([make_scene(41, i, size=96, people=people) for i in range(2)])


@settings(max_examples=50, deadline=None)
@given(sides=SIDES)
def test_stacks_hold_every_portrait_once_and_keep_pairs(sides):
    first = [torch.full((3, side, side), float(i)) for i, side in enumerate(sides)]
    second = [10 + portrait for portrait in first]
    stacks = stacks_by_side(first, second)
    seen = [int(value) for one, _ in stacks for value in one[:, 0, 0, 0]]
    assert sorted(seen) == list(range(len(sides)))
    assert len(stacks) == len(set(sides))
    assert all(torch.equal(one + 10, two) and one.ndim == 4 for one, two in stacks)


@settings(max_examples=50, deadline=None)
@given(sides=SIDES)
def test_the_mean_weighs_every_portrait_alike(sides):
    portraits = [torch.full((3, side, side), float(i)) for i, side in enumerate(sides)]
    wanted = sum(range(len(sides))) / max(len(sides), 1)
    assert float(mean_over(torch.mean, stacks_by_side(portraits))) == pytest.approx(wanted, abs=1e-5)


def test_every_weight_of_the_loss_counts():
    system, critics, step = parts()
    losses, config = step(scenes(), torch.Generator())[0], step.config
    total = (config.lambda_style * losses["style"] + config.lambda_recovery * losses["recovery"]
             + config.lambda_pose * losses["pose"] + config.lambda_gan * losses["gan"]
             + config.lambda_correlation * losses["correlation"])
    assert torch.allclose(losses["total"], total)


def test_a_step_owns_the_system_and_borrows_the_critics():
    system, critics, step = parts()
    owned = {id(p) for p in step.parameters()}
    assert owned == {id(p) for p in system.parameters()}
    assert {id(p) for p in CriticStep(critics).parameters()} == {id(p) for p in critics.parameters()}


def test_critics_learn_without_touching_the_system():
    system, critics, step = parts()
    portraits = step(scenes(), torch.Generator())[1]
    CriticStep(critics)(portraits).backward()
    assert all(p.grad is None for p in system.parameters())
    assert all(p.grad is not None and p.grad.any() for p in critics.parameters() if p.ndim > 1)


def test_without_people_every_loss_is_finite_and_critics_still_get_a_gradient():
    system, critics, step = parts()
    losses, portraits = step(scenes((0, 0)), torch.Generator())
    assert portraits == [] and losses["style"] == losses["recovery"] == losses["gan"] == 0
    assert torch.isfinite(losses["total"])
    loss = CriticStep(critics)(portraits)
    loss.backward()
    assert loss == 0 and all(not p.grad.any() for p in critics.parameters())


def test_rehearsal_reaches_the_estimator_alone():
    system, critics, step = parts(lambda_style=0.0, lambda_recovery=0.0)
    one = step(scenes(), torch.Generator().manual_seed(1))[0]
    two = step(scenes(), torch.Generator().manual_seed(1), scenes((2, 2)))[0]
    assert one["style"] == two["style"] and one["recovery"] == two["recovery"]
    assert one["pose"] != two["pose"]
