"Guidance on odd sizes, dtypes and settings, and against kornia, OpenCV and plain loops."
import cv2
import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb.guidance import (Guidance, add_noise, blur_matrix, blur_parameters, gaussian_blur,
                             gaussian_taps, guide_frame, pixelate, sweep)

sizes = st.integers(1, 40)
few = settings(max_examples=25, deadline=None)


def picture(height, width, seed=0, count=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, height, width, generator=generator, dtype=dtype)


@pytest.mark.parametrize("sigma, height, width", [(0.5, 32, 20), (2, 33, 64), (5, 48, 31)])
def test_blur_equals_kornia(sigma, height, width):
    x = picture(height, width)
    taps = len(gaussian_taps(sigma))
    ours = gaussian_blur(x, sigma)
    theirs = kornia.filters.gaussian_blur2d(x, (taps, taps), (sigma, sigma), border_type="reflect")
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("radius", [6, 8, 12])  # up to 9 taps OpenCV takes fixed tables
def test_kernel_reading_equals_opencv(radius):
    x, taps = picture(40, 50, count=1), 2 * radius + 1
    sigma, reach = blur_parameters(radius, "kernel")
    ours = gaussian_blur(x, sigma, reach)[0].permute(1, 2, 0).numpy()
    theirs = cv2.GaussianBlur(x[0].permute(1, 2, 0).numpy(), (taps, taps), 0,
                              borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@few
@given(height=sizes, width=sizes, sigma=st.floats(0.3, 30))
def test_blur_keeps_range_mean_weight_and_mirror_symmetry(height, width, sigma):
    x = picture(height, width, dtype=torch.float64)
    blurred = gaussian_blur(x, sigma)
    assert blurred.shape == x.shape
    assert blurred.min() >= x.min() - 1e-12 and blurred.max() <= x.max() + 1e-12
    torch.testing.assert_close(gaussian_blur(x.flip(3), sigma), blurred.flip(3))
    torch.testing.assert_close(gaussian_blur(1 - x, sigma), 1 - blurred)


@few
@given(length=sizes, sigma=st.floats(0.3, 30))
def test_matrix_equals_padding_step_by_step(length, sigma):
    taps = gaussian_taps(sigma)
    row, reach = torch.eye(length, dtype=torch.float64), len(taps) // 2
    padded = row
    while padded.shape[1] < length + 2 * reach:
        missing = (length + 2 * reach - padded.shape[1]) // 2
        if length == 1:
            padded = F.pad(padded, (missing, missing), value=1.0)
        else:
            step = min(missing, padded.shape[1] - 1)
            padded = F.pad(padded[:, None], (step, step), mode="reflect")[:, 0]
    weights = torch.from_numpy(taps)
    expected = torch.stack([padded[:, i:i + len(taps)] @ weights for i in range(length)])
    torch.testing.assert_close(blur_matrix(length, sigma, dtype=torch.float64), expected)


def test_blur_gradient_is_exact():
    x = picture(7, 5, count=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: gaussian_blur(t, 1.5), x)
    assert torch.autograd.gradcheck(lambda t: pixelate(t, 3), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_is_kept_and_half_is_computed_in_single(dtype):
    x = picture(24, 24)
    expected = gaussian_blur(x.to(dtype).float(), 3).to(dtype)
    assert gaussian_blur(x.to(dtype), 3).dtype == dtype
    torch.testing.assert_close(gaussian_blur(x.to(dtype), 3), expected)


def test_autocast_does_not_coarsen_the_blur():
    x = picture(24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gaussian_blur(x, 3)
    assert torch.equal(inside, gaussian_blur(x, 3))


def test_a_matrix_made_while_predicting_serves_in_training():
    x = picture(19, 23)
    with torch.inference_mode():
        gaussian_blur(x, 1.2345)
    x.requires_grad_()
    gaussian_blur(x, 1.2345).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("block", [49, 98, 161, 197])
def test_wide_cells_of_frames_begin_where_they_should(block):
    cells = np.random.default_rng(block).integers(0, 256, (1, -(-1280 // block), 3), np.uint8)
    frame = np.repeat(cells, block, 1)[:, :1280].repeat(4, 0)
    assert np.array_equal(guide_frame(frame, Guidance("pixelate", block)), frame)


@few
@given(height=sizes, width=sizes, block=st.integers(1, 45), mode=st.sampled_from(["mean", "topleft"]))
def test_pixelate_equals_a_loop_over_cells(height, width, block, mode):
    x = picture(height, width, count=1, dtype=torch.float64)
    expected = torch.empty_like(x)
    for top in range(0, height, block):
        for left in range(0, width, block):
            cell = x[..., top:top + block, left:left + block]
            value = cell.mean((2, 3), keepdim=True) if mode == "mean" else cell[..., :1, :1]
            expected[..., top:top + block, left:left + block] = value
    torch.testing.assert_close(pixelate(x, block, mode), expected)


def test_noise_has_the_stated_spread_and_range():
    x = torch.full((4, 3, 64, 64), 0.5)
    noisy = add_noise(x, 0.1, torch.Generator().manual_seed(3))
    assert abs(float((noisy - x).std()) - 0.1) < 0.005 and abs(float(noisy.mean()) - 0.5) < 0.005
    strong = add_noise(x, 5.0, torch.Generator().manual_seed(3))
    assert strong.min() == 0 and strong.max() == 1


@pytest.mark.parametrize("kind", ["blur", "pixelate", "noise"])
def test_zero_strength_is_the_identity(kind):
    x = picture(9, 11)
    guidance = sweep(kind, (0,))[0]
    assert torch.equal(guidance(x), x)
    frame = (255 * x[0].permute(1, 2, 0)).byte().numpy()
    assert np.array_equal(guide_frame(frame, guidance, rng=np.random.default_rng(0)), frame)


@pytest.mark.parametrize("reading", ["sigma", "kernel"])
@pytest.mark.parametrize("kind", ["blur", "pixelate"])
@pytest.mark.parametrize("scale", [0.25, 1.0, 2.5])
def test_frames_follow_the_exact_path(kind, reading, scale):
    frame = np.random.default_rng(1).integers(0, 256, (70, 93, 3), dtype=np.uint8)
    guidance = Guidance(kind, 8, reading=reading)
    exact = guidance(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255, scale=scale)
    fast = guide_frame(frame[::-1][::-1], guidance, scale=scale)
    assert np.abs(fast - 255 * exact[0].permute(1, 2, 0).numpy()).max() <= 2.5


def test_frame_noise_follows_its_generator():
    frame = np.full((20, 20, 3), 128, np.uint8)
    draw = lambda seed: guide_frame(frame, Guidance("noise"), rng=np.random.default_rng(seed))
    assert np.array_equal(draw(0), draw(0)) and not np.array_equal(draw(0), draw(1))
    with pytest.raises(ValueError, match="rng"):
        guide_frame(frame, Guidance("noise"))


@pytest.mark.parametrize("field, value", [
    ("kind", "fog"), ("reading", "pil"), ("mode", "max"), ("radius", -1.0),
    ("radius", float("nan")), ("noise_std", -0.1)])
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got .*allowed"):
        Guidance(**{field: value})


def test_bad_input_is_named():
    x = picture(8, 8)
    for call in (lambda: gaussian_blur(x[0], 2), lambda: pixelate((255 * x).byte(), 2),
                 lambda: add_noise(x[:, :, :0])):
        with pytest.raises(ValueError, match="^x: got"):
            call()
    for call, name in ((lambda: gaussian_blur(x, -1), "sigma"), (lambda: pixelate(x, 0), "block"),
                       (lambda: pixelate(x, 2.5), "block"), (lambda: add_noise(x, -1), "std"),
                       (lambda: Guidance()(x, scale=-1), "scale"),
                       (lambda: Guidance.from_dict({"strength": 3}), "values"),
                       (lambda: guide_frame(np.zeros((4, 4, 3)), Guidance()), "frame")):
        with pytest.raises(ValueError, match=rf"^{name}: got"):
            call()


def test_an_empty_batch_passes():
    for guidance in (Guidance("blur", 3), Guidance("pixelate", 3), Guidance("noise")):
        assert guidance(picture(8, 8)[:0]).shape == (0, 3, 8, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees():
    x = picture(64, 48)
    for guidance in (Guidance("blur", 4), Guidance("pixelate", 5)):
        torch.testing.assert_close(guidance(x.cuda()).cpu(), guidance(x), atol=2e-6, rtol=0)
    seeded = [add_noise(t, 0.5, torch.Generator().manual_seed(0)).cpu() for t in (x, x.cuda())]
    torch.testing.assert_close(*seeded)


@pytest.mark.parametrize("sigma, height, width", [(0.5, 200, 131), (2, 257, 90), (8, 300, 192)])
def test_strips_equal_the_whole_product_with_their_gradients(sigma, height, width):
    x = picture(height, width, count=1, dtype=torch.float64).requires_grad_()
    weights = picture(height, width, 1, count=1, dtype=torch.float64)
    (ours,) = torch.autograd.grad((gaussian_blur(x, sigma) * weights).sum(), x)
    down, across = (blur_matrix(side, sigma, dtype=torch.float64) for side in (height, width))
    whole = torch.matmul(down, torch.matmul(x, across.T))
    torch.testing.assert_close(gaussian_blur(x, sigma), whole)
    torch.testing.assert_close(ours, torch.autograd.grad((whole * weights).sum(), x)[0])


def test_gradients_can_be_differentiated_again():
    x = picture(6, 5, count=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda t: gaussian_blur(t, 1.5) ** 2, x)
    assert torch.autograd.gradgradcheck(lambda t: pixelate(t, 4) ** 2, x)


@few
@given(height=sizes, width=sizes, block=st.integers(1, 45), mode=st.sampled_from(["mean", "topleft"]))
def test_frame_mosaics_equal_the_exact_path(height, width, block, mode):
    frame = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    exact = 255 * Guidance("pixelate", block, mode=mode)(
        torch.from_numpy(frame).permute(2, 0, 1)[None].double() / 255)[0].permute(1, 2, 0).numpy()
    for seen in (frame, np.ascontiguousarray(frame[::-1])[::-1]):
        assert np.abs(guide_frame(seen, Guidance("pixelate", block, mode=mode)) - exact).max() <= 0.51
