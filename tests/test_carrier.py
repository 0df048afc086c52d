"The carrier alone and inside edge generators."

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.carrier import CarrierReader, CarrierWriter, chequerboard, mean_weights
from privnb.generators import build_generator


@pytest.mark.parametrize("side", [0, 1, 3])
def test_cells_have_even_sides(side):
    with pytest.raises(ValueError, match="u: "):
        chequerboard(side)


@settings(max_examples=20, deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), st.sampled_from([2, 4, 8]))
def test_a_quadratic_is_found_from_its_means(a, b, c, u):
    x = torch.arange(3.0 * u) + 0.5
    curve = (a * x**2 / u**2 + b * x / u + c).view(3, u)
    found = (mean_weights(u, True) * curve.mean(1)).sum(1)
    assert (found - curve[1]).abs().max() <= abs(a) / (8 * u**2) + 1e-4


@pytest.mark.parametrize("strength", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("u", [2, 4])
def test_written_and_read_on_a_flat_guidance(u, strength):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 16, 16, generator=generator)
    a = torch.full_like(x, 0.5)
    with torch.no_grad():
        y = a + F.pixel_shuffle(CarrierWriter(u, strength)(torch.cat([x, a], 1)), u)
        read = y + F.pixel_shuffle(CarrierReader(u, strength)(y), u)
    signs = chequerboard(u).repeat(16 // u, 16 // u)
    lost = F.avg_pool2d((x - a) * signs, u).repeat_interleave(u, 2).repeat_interleave(u, 3) * signs
    assert torch.allclose(x - read, lost, atol=1e-4)


def test_where_nothing_was_removed_nothing_is_written():
    writer = CarrierWriter()
    torch.nn.init.normal_(writer.mix.weight)
    x = torch.rand(1, 3, 8, 8)
    assert writer(torch.cat([x, x], 1)).abs().max() == 0


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 3)])
def test_generators_carry_at_any_size(size):
    enhancer = build_generator("edge", in_channels=6, carrier=0.1)
    recoverer = build_generator("edge", in_channels=3, carrier=0.1)
    x, a = torch.rand(2, 3, *size), torch.full((2, 3, *size), 0.5)
    y = enhancer(torch.cat([x, a], 1), base=a)
    assert y.shape == recoverer(y, base=y).shape == x.shape


def test_carriers_need_a_picture_or_picture_and_guidance():
    with pytest.raises(ValueError, match="carrier: got 4"):
        build_generator("edge", in_channels=4, carrier=0.1)


def test_no_carrier_by_default_and_none_in_the_state():
    names = build_generator("edge", in_channels=6).state_dict()
    assert not any("carrier" in name for name in names)
    reader = build_generator("edge", in_channels=3, carrier=0.1).state_dict()
    assert [n for n in reader if "carrier" in n] == ["body.carrier.mix.weight"]
