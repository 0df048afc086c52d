"Losses: properties over random input, gradients, precision, bad input."
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.losses import (LOSS_MODES, correlation_penalty, discriminator_loss, gan_loss,
                           generator_loss, threshold_curve, thresholded_l1)

REDUCE = ('image', 'batch', 'pixel')
modes, reduces = st.sampled_from(LOSS_MODES), st.sampled_from(REDUCE)
seeds, thresholds = st.integers(0, 2**31), st.floats(0, 0.5)


def pair(seed, n=3, size=6):
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(n, 3, size, size, generator=g, dtype=torch.float64) for _ in range(2)]


@settings(max_examples=50, deadline=None)
@given(seeds, thresholds, modes, reduces)
def test_between_zero_and_l1(seed, threshold, mode, reduce):
    a, b = pair(seed)
    value = thresholded_l1(a, b, threshold, mode, reduce)
    assert value.shape == () and -1e-12 <= value
    assert value <= thresholded_l1(a, b, mode='l1') + 1e-9


@settings(max_examples=30, deadline=None)
@given(seeds, modes, reduces)
def test_threshold_zero_is_eq_3(seed, mode, reduce):
    a, b = pair(seed)
    eq3 = 2 * (a - b).abs().mean()
    assert torch.isclose(thresholded_l1(a, b, 0, mode, reduce), eq3)


@settings(max_examples=30, deadline=None)
@given(seeds, modes, thresholds, thresholds)
def test_a_larger_threshold_never_costs_more(seed, mode, t1, t2):
    a, b = pair(seed)
    low, high = sorted((t1, t2))
    assert (thresholded_l1(a, b, high, mode, 'pixel')
            <= thresholded_l1(a, b, low, mode, 'pixel') + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.001, 1))
def test_huber_is_continuous_and_its_slope_rises_from_0_to_1(threshold):
    x = torch.linspace(0, 3 * threshold, 3001, dtype=torch.float64, requires_grad=True)
    y = threshold_curve(x, threshold, 'huber')
    slope, = torch.autograd.grad(y.sum(), x)
    assert y.diff().max() <= 1.001 * threshold / 1000
    assert (slope.diff() >= -1e-9).all() and slope[0] == 0 and slope[-1] == 1


@pytest.mark.parametrize('mode', ('paper', 'hinge', 'huber'))
@pytest.mark.parametrize('reduce', REDUCE)
def test_no_pull_at_the_guidance_and_finite_gradients(mode, reduce):
    a, b = pair(0)
    a = b.clone().requires_grad_()
    thresholded_l1(a, b, 0.02, mode, reduce).backward()
    assert (a.grad == 0).all()


def test_images_do_not_share_their_allowance():
    a, b = pair(1)
    far = b.clone()
    far[0] = a[0]
    single = thresholded_l1(far[:1], b[:1], 0.1)
    assert torch.isclose(thresholded_l1(far, b, 0.1), single / 3)


def test_losses_of_nobody_are_zero_with_a_gradient():
    x = torch.rand(0, 3, 8, 8, requires_grad=True)
    for loss in (thresholded_l1(x, x.detach()), correlation_penalty(x.detach(), x, x.detach())):
        assert loss == 0
        loss.backward()


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_gan_losses_equal_torch_cross_entropy(seed):
    s, t = pair(seed)
    s, t = 20 * s - 10, 20 * t - 10
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert torch.isclose(gan_loss(s, True), bce(s, torch.ones_like(s)))
    assert torch.isclose(gan_loss(s, False), bce(s, torch.zeros_like(s)))
    assert torch.isclose(generator_loss(s), gan_loss(s, True))
    halves = 0.5 * (gan_loss(s, True) + gan_loss(t, False))
    assert torch.isclose(discriminator_loss(s, t), halves)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(-1, 1))
def test_penalty_is_the_share_put_back(seed, share):
    x, a = pair(seed)
    value = correlation_penalty(x, a + share * (x - a), a, eps=0)
    assert torch.isclose(value, torch.tensor(max(share, 0.0), dtype=x.dtype), atol=1e-9)


def test_penalty_does_not_let_one_portrait_pay_for_another():
    x, a = pair(3, n=2)
    enhanced = a.clone()
    enhanced[0] += 0.4 * (x - a)[0]
    enhanced[1] -= 0.4 * (x - a)[1]
    assert torch.isclose(correlation_penalty(x, enhanced, a, eps=0), torch.tensor(0.2).double())


def test_penalty_where_nothing_was_removed():
    x = torch.rand(2, 3, 8, 8)
    y = (x + 0.1).requires_grad_()
    value = correlation_penalty(x, y, x)
    value.backward()
    assert value == 0 and y.grad.isfinite().all()


def test_bad_input_is_named():
    a, b = pair(0)
    for options, word in (({'mode': 'l2'}, 'mode'), ({'reduce': 'row'}, 'reduce'),
                          ({'threshold': -1}, 'threshold')):
        with pytest.raises(ValueError, match=f'^{word}: got'):
            thresholded_l1(a, b, **options)
    with pytest.raises(ValueError, match='prediction'):
        thresholded_l1(a, b[:1])
