"JPEG as an operation against libjpeg, scipy and kornia, odd input, and what a file leaves."
import io
import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import privnb.storage as storage
from privnb.images import jpeg_round_trip, load_image, quantize, to_tensor, to_uint8
from privnb.metrics import psnr
from privnb.scenes import make_scene
from privnb.storage import (ROUNDINGS, STORAGE, after_storage, block_dct, block_idct, jpeg_steps,
                            random_storage, soft_jpeg, soft_round, storage_figure)

few = settings(max_examples=25, deadline=None)
sizes = st.integers(1, 40)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed))


def libjpeg(images, quality, subsample):
    "Through Pillow, with the chroma as asked for."
    decoded = []
    for array in to_uint8(images):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling=2 * subsample)
        decoded.append(np.array(Image.open(buffer)))
    return to_tensor(np.stack(decoded))


def levels_apart(a, b):
    return 255 * (a - b).square().mean().sqrt().item()


@pytest.fixture(scope="module")
def photographs():
    from ultralytics.utils import ASSETS

    found = [to_tensor(load_image(ASSETS / name)) for name in ("bus.jpg", "zidane.jpg")]
    return [image[..., 101:404, 203:500] for image in found]


# the transform

def test_the_transform_is_scipys():
    planes = 100 * torch.randn(2, 3, 16, 24, generator=seeded())
    blocks = planes.numpy().reshape(2, 3, 2, 8, 3, 8).transpose(0, 1, 2, 4, 3, 5)
    wanted = scipy.fft.dctn(blocks, axes=(-2, -1), norm="ortho").reshape(2, 3, 2, 3, 64)
    assert np.allclose(block_dct(planes), wanted.transpose(0, 1, 4, 2, 3), atol=1e-3)


@few
@given(n=st.integers(0, 2), c=st.integers(1, 3), height=sizes, width=sizes, double=st.booleans())
def test_the_transform_is_undone_at_any_size(n, c, height, width, double):
    planes = torch.rand(n, c, height, width, dtype=torch.float64 if double else torch.float32)
    coefficients = block_dct(planes)
    assert coefficients.shape == (n, c, 64, -(-height // 8), -(-width // 8))
    assert torch.allclose(block_idct(coefficients, height, width), planes, atol=1e-5)


# steps and rounding

def test_steps_are_those_that_pillow_writes_at_every_quality():
    picture = Image.new("RGB", (16, 16))
    for quality in range(1, 101):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        written = torch.tensor(list(Image.open(buffer).quantization.values()))
        assert torch.equal(jpeg_steps(quality)[0], written.float()), quality
    assert torch.equal(jpeg_steps(torch.tensor([20.0, 90.0])),
                       torch.cat([jpeg_steps(20), jpeg_steps(90)]))


@pytest.mark.parametrize("quality", [0, 101, float("nan"), torch.tensor([75.0, -1.0])])
def test_qualities_outside_the_range_are_refused(quality):
    with pytest.raises(ValueError, match="quality: .*; allowed is 1 to 100"):
        jpeg_steps(quality)
    with pytest.raises(ValueError, match="quality"):
        soft_jpeg(torch.rand(2, 3, 8, 8), quality)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_slopes_of_rounding(rounding):
    x = torch.tensor([-2.4, -0.5001, 0.0, 0.2, 3.499], dtype=torch.float64, requires_grad=True)
    value = soft_round(x, rounding)
    slope = torch.autograd.grad(value.sum(), x)[0]
    rest = (x - x.round()).detach()
    assert torch.allclose(slope, torch.ones(5).double() if rounding == "straight" else 3 * rest**2)
    assert torch.allclose(value, x.round() + (rest**3 if rounding == "cubic" else 0))


def test_unknown_roundings_are_refused():
    with pytest.raises(ValueError, match="rounding: 'soft'; allowed is one of cubic, straight, sharp"):
        soft_jpeg(torch.rand(1, 3, 8, 8), 75, rounding="soft")


# against libjpeg

@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("quality", [95, 85, 75, 50])
def test_photographs_come_out_as_from_libjpeg(photographs, quality, subsample):
    "Odd sides; coefficients near a half fall to either side, which leaves less than two levels rms."
    for image in photographs:
        real = libjpeg(image, quality, subsample)
        for rounding in ROUNDINGS:
            soft = soft_jpeg(image, quality, subsample, rounding)
            assert levels_apart(soft, real) < 2
            assert (soft - real).mean().abs() * 255 < 0.2, "a shift of brightness"


def test_nearer_to_libjpeg_than_kornia(photographs):
    from kornia.enhance import jpeg_codec_differentiable

    for image in photographs:
        for quality in (85, 75, 50):
            real = libjpeg(image, quality, True)
            other = jpeg_codec_differentiable(image, torch.tensor([float(quality)]))
            assert levels_apart(soft_jpeg(image, quality), real) < levels_apart(other, real)


@few
@given(colour=st.tuples(*3 * [st.integers(0, 255)]), quality=st.integers(30, 95),
       subsample=st.booleans(), height=sizes, width=sizes)
def test_flat_pictures_at_any_size(colour, quality, subsample, height, width):
    "One coefficient a plane: half of its step of an eighth, through the colour matrix."
    flat = (torch.tensor(colour) / 255).view(1, 3, 1, 1).expand(1, 3, height, width)
    soft = soft_jpeg(flat, quality, subsample, "sharp")
    spread = (soft.amax((2, 3)) - soft.amin((2, 3))).max()
    assert soft.shape == flat.shape and spread < 1e-5
    steps = jpeg_steps(quality)[0, :, 0] / 16 + 1.5
    assert 255 * (soft - flat).abs().max() <= steps[0] + 1.772 * steps[1]


@few
@given(n=st.integers(0, 3), height=sizes, width=sizes, quality=st.integers(1, 100),
       subsample=st.booleans(), rounding=st.sampled_from(ROUNDINGS))
def test_any_size_and_quality(n, height, width, quality, subsample, rounding):
    images = noise(n, 3, height, width).requires_grad_()
    stored = soft_jpeg(images, quality, subsample, rounding)
    assert stored.shape == images.shape and ((stored >= 0) & (stored <= 1)).all()
    gradient = torch.autograd.grad(stored.square().sum(), images)[0]
    assert gradient.isfinite().all()


def test_one_quality_per_picture():
    images = noise(3, 3, 20, 28)
    qualities = torch.tensor([20.0, 75.0, 95.0])
    together = soft_jpeg(images, qualities)
    apart = [soft_jpeg(images[i:i + 1], int(q)) for i, q in enumerate(qualities)]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)
    with pytest.raises(ValueError, match="quality: 2 of them; allowed is 1 or 3"):
        soft_jpeg(images, qualities[:2])


def test_sharp_has_the_gradient_of_cubic_and_the_value_of_straight():
    images = (0.3 + 0.4 * noise(1, 3, 32, 32)).requires_grad_()
    stored = {r: soft_jpeg(images, 90, False, r) for r in ROUNDINGS}
    sent = torch.randn(images.shape, generator=seeded())
    back = {r: torch.autograd.grad(value, images, sent)[0] for r, value in stored.items()}
    assert torch.equal(stored["sharp"], stored["straight"])
    assert torch.allclose(back["sharp"], back["cubic"], atol=1e-5)
    assert torch.allclose(back["straight"], sent, atol=1e-4)


def test_half_precision_loses_nothing_inside():
    images = noise(1, 3, 24, 24)
    wanted = soft_jpeg(images, 75)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(soft_jpeg(images, 75), wanted)
    half = soft_jpeg(images.bfloat16(), 75)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, soft_jpeg(images.bfloat16().float(), 75).bfloat16())


# a random file

def drawn(monkeypatch, n=400, **options):
    "Quality and chroma of each picture that `random_storage` sends through a JPEG."
    seen = []

    def watch(images, quality, subsample, rounding):
        seen.extend((q, subsample, rounding) for q in quality.tolist())
        return images

    monkeypatch.setattr(storage, "soft_jpeg", watch)
    random_storage(torch.zeros(n, 3, 1, 1), seeded(), **options)
    return seen


def test_draws_cover_their_range(monkeypatch):
    seen = drawn(monkeypatch, quality=(60, 63))
    assert {q for q, _, _ in seen} == {60, 61, 62, 63}
    assert 0.4 < len(seen) / 400 < 0.6
    assert 0.4 < sum(subsample for _, subsample, _ in seen) / len(seen) < 0.6
    assert len(drawn(monkeypatch, probability=0.0)) == 0
    assert len(drawn(monkeypatch, probability=1.0)) == 400
    assert {q for q, _, _ in drawn(monkeypatch, quality=(75, 75))} == {75}
    assert {r for _, _, r in drawn(monkeypatch, rounding="cubic")} == {"cubic"}


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_random_file_is_eight_bits_and_the_seed_decides(n):
    images = 1.4 * noise(n, 3, 18, 30) - 0.2
    one, same = (random_storage(images, seeded(2)) for _ in range(2))
    assert torch.equal(one, same) and one.shape == images.shape
    assert torch.equal(one, quantize(one))
    assert torch.equal(random_storage(images, seeded(), probability=0.0), quantize(images))


def test_the_stream_of_random_numbers_does_not_depend_on_the_draw():
    after = set()
    for probability in (0.0, 0.5, 1.0):
        generator = seeded()
        random_storage(noise(4, 3, 8, 8), generator, probability=probability)
        after.add(torch.rand((), generator=generator).item())
    assert len(after) == 1


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_picture_gets_its_gradient(rounding):
    images = noise(8, 3, 32, 32).requires_grad_()
    stored = random_storage(images, seeded(1), rounding=rounding)
    gradient = torch.autograd.grad((stored - 0.5).square().sum(), images)[0]
    assert gradient.isfinite().all() and (gradient.abs().amax((1, 2, 3)) > 0).all()
    written = (stored != quantize(images)).flatten(1).any(1)
    assert written.any() and not written.all()
    assert torch.allclose(gradient[~written], 2 * (stored - 0.5)[~written], atol=1e-5)


@pytest.mark.parametrize("options", [{"probability": 1.1}, {"probability": -0.1}, {"quality": (90, 50)}])
def test_impossible_draws_are_refused(options):
    with pytest.raises(ValueError, match="probability, quality: "):
        random_storage(torch.rand(1, 3, 8, 8), seeded(), **options)


# judging

@few
@given(height=st.integers(2, 40), width=st.integers(2, 40), n=st.integers(1, 3))
def test_each_way_of_storing_keeps_the_shape(height, width, n):
    y = noise(n, 3, height, width)
    for name, store in STORAGE.items():
        stored = store(y)
        assert stored.shape == y.shape, name
        assert stored.min() >= 0 and stored.max() <= 1
    assert torch.equal(STORAGE["JPEG 85"](y), jpeg_round_trip(y, 85))


def test_storage_is_judged_in_eight_bits():
    y = quantize(noise(2, 3, 16, 16))
    figures = after_storage(lambda stored: stored, y, y)
    assert list(figures) == list(STORAGE)
    assert figures["float"] == figures["8-bit PNG"] == pytest.approx(100)
    assert after_storage(lambda stored: stored + 0.4 / 255, y, y)["float"] == pytest.approx(100)
    shifted = after_storage(lambda stored: stored * 0 + 0.5, torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))
    assert shifted["float"] == pytest.approx(6.0, abs=0.1)
    with pytest.raises(ValueError, match="recover: gave pixels that are no finite numbers after float"):
        after_storage(lambda stored: stored * math.nan, y, y)


def test_the_figure_is_the_one_of_the_metrics():
    x, y = noise(3, 3, 32, 32), noise(3, 3, 32, 32, seed=1)
    mask = noise(3, 32, 32, seed=2) < 0.4
    mask[1] = False
    for way in (None, mask):
        figures = after_storage(lambda stored: stored, y, x, way)
        for name, store in STORAGE.items():
            assert figures[name] == pytest.approx(psnr(store(y), x, way), abs=1e-3)


def test_pictures_must_agree():
    with pytest.raises(ValueError, match=r"enhanced: \(1, 3, 8, 8\); allowed: \(1, 3, 8, 9\)"):
        after_storage(lambda y: y, torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))


def test_a_line_for_each_system():
    import matplotlib.pyplot as plt

    figures = {"one": {"8-bit PNG": 30.0, "JPEG 75": 20.0}, "two": {"8-bit PNG": 25.0, "JPEG 75": 24.0}}
    fig = storage_figure(figures, "a title")
    (ax,) = fig.axes
    assert [line.get_label() for line in ax.lines] == ["one", "two"]
    assert [list(line.get_ydata()) for line in ax.lines] == [[30, 20], [25, 24]]
    assert ax.get_title() == "a title" and "dB" in ax.get_ylabel()
    plt.close(fig)
    with pytest.raises(ValueError, match="figures: "):
        storage_figure({**figures, "three": {"8-bit PNG": 1.0}})


def test_a_system_is_measured_after_every_way_of_storing():
    from privnb.stored import psnr_after_storage
    from privnb.system import PrivacySystem

    system = PrivacySystem.load("single")
    scenes = [make_scene(5, i, size=96, people=(0, 2), split="test") for i in range(6)]
    empty = [scene for scene in scenes if not len(scene.boxes)]
    full = [scene for scene in scenes if len(scene.boxes)]
    assert empty and full
    found = psnr_after_storage(system, scenes, size=2)
    assert list(found) == list(STORAGE) and all(math.isfinite(v) for v in found.values())
    alone = [psnr_after_storage(system, [scene]) for scene in full]
    for way, value in found.items():
        assert value == pytest.approx(sum(one[way] for one in alone) / len(alone), abs=1e-3)
    with pytest.raises(ValueError, match="without people"):
        psnr_after_storage(system, empty)
    with pytest.raises(ValueError, match="no recoverer"):
        psnr_after_storage(PrivacySystem.load("single", recoverer=False), full)
