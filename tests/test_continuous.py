"One generator for every strength: its condition, its range, its records."

import math

import pytest
import torch

from privnb.continuous import KINDS, ContinuousGenerator, Film, strength_code
from privnb.records import RecoveryRefused
from privnb.scenes import make_scene
from privnb.system import PrivacySystem, SystemConfig

RANGES = {"pixelate": (4.0, 16.0), "blur": (2.0, 12.0)}


@pytest.fixture(scope="module")
def family():
    torch.manual_seed(0)
    config = SystemConfig(generator="continuous", portrait=128, ranges=RANGES,
                          pose={"width": 0.0625})
    return PrivacySystem(config).eval()


@pytest.fixture(scope="module")
def scene():
    return make_scene(seed=4, index=1, size=160, people=(1, 2))


def test_codes_are_finite_for_every_strength():
    for kind in KINDS:
        for radius in (0, 0.1, 1, 4096):
            assert strength_code(kind, radius, 64).isfinite().all()
    with pytest.raises(ValueError, match="kind: 'noise'; allowed are pixelate, blur"):
        strength_code("noise", 3, 64)


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (64, 64), (130, 50)])
@pytest.mark.parametrize("channels", [3, 6])
def test_any_size_in_same_size_out(size, channels):
    net, x = ContinuousGenerator(channels).eval(), torch.rand(2, channels, *size)
    with torch.no_grad():
        y = net(x, base=x[:, :3], code=strength_code("blur", 4, max(size)))
    assert y.shape == (2, 3, *size) and y.isfinite().all()


def test_wrong_channels_are_named():
    with pytest.raises(ValueError, match=r"x: got shape \(1, 4, 8, 8\), need \(N, 6, H, W\)"):
        ContinuousGenerator(6)(torch.zeros(1, 4, 8, 8), None, strength_code("blur", 4, 8))


def test_every_weight_of_the_kind_at_hand_learns():
    net, x = ContinuousGenerator(6), torch.rand(1, 6, 32, 32)
    net.film.write.weight.data.normal_()
    net(x, x[:, :3], strength_code("blur", 4, 32)).square().mean().backward()
    idle = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == {"carriers.pixelate.mix.weight"}


def test_film_starts_as_the_identity():
    for scale, shift in Film([3, 5])(torch.randn(4)):
        assert torch.equal(scale, torch.ones_like(scale)) and not shift.any()


def test_strengths_outside_the_training_are_refused(family):
    for kind, radius in (("pixelate", 2), ("blur", 13), ("noise", 1), ("blur", math.nan)):
        with pytest.raises(ValueError, match="trained for pixelate 4 to 16, blur 2 to 12"):
            family.at(kind, radius)
    with pytest.raises(ValueError, match="trained for pixelate 12 only"):
        PrivacySystem(SystemConfig(pose={"width": 0.0625})).at("pixelate", 8)


def test_a_view_shares_the_networks_and_leaves_the_system_alone(family):
    before = family.config
    view = family.at("blur", 3)
    assert view.enhancer is family.enhancer and family.config is before
    assert view.fingerprint() == family.fingerprint()


@pytest.mark.parametrize("kind, radius", [("pixelate", 4), ("pixelate", 16), ("blur", 2),
                                          ("blur", 12)])
def test_the_record_says_how_to_recover(family, scene, kind, radius):
    protected = family.at(kind, radius).enhance(scene.image, scene.boxes)
    assert protected.record["guidance"] == [kind, radius]
    back = family.recover(protected.image, protected.record)
    again = family.at("blur", 7).recover(protected.image, protected.record)
    assert (back == again).all()
    if radius > 10:  # a weak guidance removes too little to be read without training
        before = abs(protected.image.astype(float) - scene.image).mean()
        assert abs(back.astype(float) - scene.image).mean() < 0.6 * before


@pytest.mark.parametrize("wrong", [None, [], ["blur"], ["blur", "much"], 3])
def test_a_damaged_record_is_refused(family, scene, wrong):
    protected = family.enhance(scene.image, scene.boxes)
    with pytest.raises(RecoveryRefused, match="damaged"):
        family.recover(protected.image, {**protected.record, "guidance": wrong})


def test_saved_and_loaded_with_its_range(family, scene, tmp_path):
    family.save(tmp_path / "system")
    loaded = PrivacySystem.load(tmp_path / "system")
    assert loaded.config == family.config
    one, two = (s.at("blur", 6).enhance(scene.image, scene.boxes) for s in (family, loaded))
    assert (one.image == two.image).all() and one.record == two.record


def test_random_strengths_follow_the_seed(family):
    drawn = [[family.sampled(torch.Generator().manual_seed(k)).config.guidance for k in range(20)]
             for _ in range(2)]
    assert drawn[0] == drawn[1] and len({g.radius for g in drawn[0]}) == 20
