"Generators: sizes, batch independence, modes, gradients, state dicts, bad input."
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.generators import (GENERATORS, EdgeGenerator, PatchDiscriminator, ResNetGenerator,
                               UNetGenerator, build_generator, count_macs, count_parameters,
                               pad_to_multiple)

SMALL = {'edge': {'width': 12}, 'unet7': {'ngf': 4}, 'unet8': {'ngf': 4},
         'resnet6': {'ngf': 4}, 'resnet9': {'ngf': 4}}


def small(name, in_channels=3, **options):
    torch.manual_seed(0)
    return build_generator(name, in_channels, **SMALL[name], **options)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.integers(1, 150), st.integers(1, 150))
def test_any_size_comes_back(name, height, width):
    x = torch.rand(1, 6, height, width)
    with torch.no_grad():
        out = small(name, 6)(x, base=x[:, :3])
        picture = small(name, 6)(x)
    assert out.shape == picture.shape == (1, 3, height, width)
    assert out.isfinite().all()
    assert 0 <= picture.min() and picture.max() <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 40))
def test_padding_is_least_and_keeps_the_picture(height, width, multiple, least):
    x = torch.rand(1, 2, height, width)
    out = pad_to_multiple(x, multiple, least)
    assert torch.equal(out[..., :height, :width], x)
    for side, padded in zip((height, width), out.shape[-2:]):
        assert padded % multiple == 0 and padded >= max(side, least)
        assert padded - multiple < max(side, least)


@pytest.mark.parametrize('name', sorted(SMALL))
def test_a_picture_does_not_depend_on_its_batch_or_the_mode(name):
    net, x = small(name), torch.rand(3, 3, 40, 56)
    with torch.no_grad():
        together = net.train()(x)
        alone = torch.cat([net.eval()(x[i:i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not any('running' in key or 'num_batches' in key for key in net.state_dict())


@pytest.mark.parametrize('name', sorted(SMALL))
def test_every_parameter_and_the_input_get_a_gradient(name):
    net = small(name, residual=False)
    x = torch.rand(2, 3, 128, 128, requires_grad=True)
    (net(x) - torch.rand(2, 3, 128, 128)).square().mean().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize('name', sorted(SMALL))
def test_residual_start_is_near_the_base(name):
    x = torch.rand(1, 6, 64, 64)
    base = x[:, 3:]
    with torch.no_grad():
        correction = (small(name, 6, residual=True)(x, base) - base).abs().max()
    assert correction < 0.03


@pytest.mark.parametrize('name', sorted(SMALL))
def test_same_seed_same_network_and_state_round_trip(name):
    first, second = small(name), small(name)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = first(x)
        assert torch.equal(before, second(x))
        other = build_generator(name, **SMALL[name])
        other.load_state_dict(first.state_dict())
        assert torch.equal(before, other(x))


@pytest.mark.parametrize('blocks, unshuffle, carrier', [(1, 4, 0.0), (2, 2, 0.0), (3, 4, 0.5), (4, 1, 0.0)])
def test_nothing_beyond_its_reach_changes_a_cell(blocks, unshuffle, carrier):
    net = EdgeGenerator(6, 12, blocks, unshuffle, carrier=carrier)
    step, reach = net.multiple, net.reach
    side = 2 * (reach + 2 * step)
    start, stop = side // 2 // step * step, side // 2 // step * step + step
    x = torch.rand(1, 6, side, side)
    with torch.no_grad():
        known = net(x, base=x[:, :3])[..., start:stop]
        for far, changes in ((reach, False), (reach - step, True)):
            other = x.clone()
            other[..., :start - far], other[..., stop + far:] = 0, 1
            apart = (net(other, base=other[:, :3])[..., start:stop] - known).abs().max()
            assert (apart > 0) == changes, (far, apart)


@pytest.mark.parametrize('name', sorted(SMALL))
def test_no_people_is_no_trouble(name):
    x = torch.rand(0, 6, 64, 64)
    assert small(name, 6)(x, base=x[:, :3]).shape == (0, 3, 64, 64)


def test_discriminator_accepts_tiny_and_odd_pictures():
    critic = PatchDiscriminator(ndf=4)
    for side in (1, 7, 16, 33):
        x = torch.rand(2, 3, side, side + 2)
        assert critic(x, x).shape[:2] == (2, 1)
        assert torch.equal(critic(x, x), critic(torch.cat([x, x], 1)))
    with pytest.raises(ValueError, match='6'):
        critic(x)


def test_macs_grow_with_the_area_and_leave_the_network_alone():
    net = EdgeGenerator(width=12)
    assert count_macs(net, (128, 256)) * 2 == count_macs(net, 256) == count_macs(net)
    assert all(p.device.type == 'cpu' for p in net.parameters())
    assert count_parameters(EdgeGenerator(width=24)) > 3 * count_parameters(net)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match='unet9.*edge'):
        build_generator('unet9')
    with pytest.raises(ValueError, match=r'x: got shape \(1, 3, 8, 8\)'):
        small('edge', 6)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match='downs'):
        UNetGenerator(downs=1)
    with pytest.raises(ValueError, match='blocks'):
        EdgeGenerator(blocks=0)
    assert set(SMALL) == set(GENERATORS) - {"continuous", "bottleneck"}  # which have tests of their own


def test_widths_that_are_not_multiples_of_three():
    for width in (8, 16, 50):
        assert EdgeGenerator(width=width)(torch.rand(1, 3, 24, 24)).shape == (1, 3, 24, 24)
    assert ResNetGenerator(0, ngf=4)(torch.rand(1, 3, 24, 24)).shape == (1, 3, 24, 24)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_agrees_with_cpu():
    net, x = small('edge'), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        here, there = net(x), net.cuda()(x.cuda()).cpu()
    assert torch.allclose(here, there, atol=2e-3)
