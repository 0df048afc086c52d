"What would bore a reader of nbs/09_metrics.ipynb."
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from privnb.metrics import (COCO_SIGMAS, box_mask, coco_head_size, match_people, oks, pckh,
                            pooled_psnr, pose_ap, precision_recall, psnr, ssim)
from privnb.pose import Prediction

SSIM = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True)


def pictures(seed, n=2, channels=3, height=23, width=31):
    "Two stacks of pictures, some values outside [0, 1]."
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(n, channels, height, width, generator=generator)
    return a, a + 0.3 * torch.randn(a.shape, generator=generator)


def bytes_of(x):
    "8-bit picture (H, W, C)."
    return (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 3, 4]), st.integers(11, 40), st.integers(11, 40))
def test_pictures_agree_with_scikit_image(seed, channels, height, width):
    a, b = pictures(seed, 2, channels, height, width)
    mask = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[:, 0, 0] = True
    for i in range(2):
        x, y = bytes_of(a[i]), bytes_of(b[i])
        expected = peak_signal_noise_ratio(x, y, data_range=255)
        assert math.isclose(psnr(a, b, reduce="none")[i], expected, rel_tol=1e-9)
        mean, full = structural_similarity(x, y, channel_axis=-1, data_range=255, **SSIM)
        assert abs(ssim(a, b, reduce="none")[i] - mean) < 1e-6
        assert abs(ssim(a, b, mask, reduce="none")[i] - full[mask[i].numpy()].mean()) < 1e-6


def test_pictures_without_a_pixel_that_counts():
    a, b = pictures(0)
    mask = torch.ones(2, 23, 31, dtype=torch.bool)
    mask[1] = False
    for metric in (psnr, ssim):
        values = metric(a, b, mask, reduce="none")
        assert values[0].isfinite() and values[1].isnan()
        assert metric(a, b, mask) == values[0].item()
        assert math.isnan(metric(a, b, mask & False))
    assert math.isnan(pooled_psnr(a, b, mask & False)) and pooled_psnr(a, a) == math.inf


@pytest.mark.parametrize("metric", [psnr, pooled_psnr, ssim])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_failure_counts_as_none_and_is_no_better_score(metric, value):
    "A picture that is not finite is not left out of the mean; where nothing counts it does not matter."
    a, b = pictures(0)
    mask = torch.ones(2, 23, 31, dtype=torch.bool)
    mask[:, :9] = False
    whole = metric(a, b, mask)
    b[1, 0, 20, 20] = value
    with pytest.raises(ValueError, match="^b: got pixels that count"):
        metric(a, b, mask)
    with pytest.raises(ValueError, match="^a: got pixels that count"):
        metric(b, a)
    a, b = pictures(0)
    b[1, 1, 0, 3] = value
    assert math.isclose(metric(a, b, mask), whole, rel_tol=1e-6)


@pytest.mark.parametrize("metric", [psnr, pooled_psnr, ssim])
def test_pictures_refuse_other_shapes(metric):
    a, b = pictures(0)
    with pytest.raises(ValueError, match="^b:"):
        metric(a, b[..., :-1])
    with pytest.raises(ValueError, match="^mask:"):
        metric(a, b, torch.ones(2, 31, 23, dtype=torch.bool))
    with pytest.raises(ValueError, match="^reduce:"):
        psnr(a, b, reduce="sum")
    with pytest.raises(ValueError, match="^a:"):
        ssim(a[..., :8], b[..., :8])


def test_pictures_ignore_gradient_and_dtype():
    a, b = pictures(1)
    assert psnr(a.requires_grad_(), b) == psnr(a.detach().double(), b.double())


def test_box_mask_rounds_by_pixel_centres():
    boxes = torch.tensor([[0.4, 0.0, 2.6, 1.0], [-5.0, -5.0, 99.0, 99.0]])
    mask = box_mask(boxes, torch.tensor([0, 2]), 3, 4, 5)
    assert mask.sum((1, 2)).tolist() == [3, 0, 20]
    assert box_mask(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 2, 4, 5).sum() == 0


def people(seed, counts, noise, extra=0, hidden=0.2):
    "Random targets and findings of `counts` people per image."
    rng, targets, found = np.random.default_rng(seed), [], []
    for count in counts:
        spot = rng.uniform(0, 500, (count, 1, 2))
        xy = spot + rng.uniform(0, 120, (count, 17, 2))
        seen = 2.0 * (rng.random((count, 17, 1)) > hidden)
        labels, areas = np.concatenate([xy, seen], -1), rng.uniform(900, 9e3, count)
        targets.append(SimpleNamespace(keypoints=labels, areas=areas))
        false = rng.uniform(0, 900, (extra, 17, 2))
        guess = np.concatenate([xy + rng.normal(0, noise, xy.shape), false])
        guess = torch.from_numpy(np.concatenate([guess, np.ones((len(guess), 17, 1))], -1))
        scores = torch.from_numpy(rng.random(len(guess)))
        found.append(Prediction(torch.zeros(len(guess), 4), scores, guess))
    return found, targets


def simple_ap(found, targets, threshold):
    "COCO's greedy rule written out, for images of at most 20 findings."
    rows, total = [], 0
    for prediction, target in zip(found, targets):
        total += len(target.areas)
        free = np.ones(len(target.areas), bool)
        for row in prediction.scores.argsort(descending=True).tolist():
            alike = oks(prediction.keypoints[row], target.keypoints, target.areas).numpy()
            alike = np.where(free, alike, -1)
            hit = len(alike) > 0 and alike.max() >= threshold
            if hit:
                free[alike.argmax()] = False
            rows.append((prediction.scores[row].item(), hit))
    hits = np.array([hit for _, hit in sorted(rows, key=lambda row: -row[0])])
    recall, precision = np.cumsum(hits) / total, np.cumsum(hits) / np.arange(1, len(hits) + 1)
    at = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
    return 100 * np.mean(at), 100 * recall[-1]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_agrees_with_the_rule_written_out(seed):
    found, targets = people(seed, [3, 0, 5, 1, 2], 6.0, extra=2)
    result = pose_ap(found, targets)
    ap50, ar50 = simple_ap(found, targets, 0.5)
    assert abs(result["ap50"] - ap50) < 0.5 and abs(result["ar50"] - ar50) < 1e-6


def test_average_precision_of_batches_lists_and_odd_cases():
    found, targets = people(0, [2, 0, 3], 3.0)
    flat = SimpleNamespace(
        images=torch.zeros(3, 3, 4, 4), index=torch.tensor([0, 0, 2, 2, 2]),
        keypoints=torch.from_numpy(np.concatenate([t.keypoints for t in targets])),
        areas=torch.from_numpy(np.concatenate([t.areas for t in targets])))
    assert pose_ap(found, flat) == pose_ap(found, targets)
    with pytest.raises(ValueError, match="^predictions:"):
        pose_ap(found[:2], targets)
    with pytest.raises(ValueError, match="^sigmas:"):
        pose_ap(found, targets, COCO_SIGMAS[:16])
    for target in targets:
        target.keypoints[..., 2] = 0
    assert all(math.isnan(value) for value in pose_ap(found, targets).values())
    assert all(math.isnan(value) for value in pose_ap([], []).values())


def test_other_joints_need_their_own_sigmas():
    found, targets = people(0, [2, 2], 0.0)
    for prediction, target in zip(found, targets):
        prediction.keypoints = prediction.keypoints[:, :16]
        target.keypoints = target.keypoints[:, :16]
    precision, recall = precision_recall(found, targets, np.full(16, 0.05))
    assert np.allclose(precision, 1) and np.allclose(recall, 1)


def test_oks_broadcasts_to_a_matrix():
    found, targets = people(2, [4], 5.0)
    matrix = oks(found[0].keypoints[:, None], targets[0].keypoints[None], targets[0].areas)
    assert matrix.shape == (4, 4) and (matrix.diagonal() == matrix.amax(0)).all()


def test_matching_takes_each_finding_once():
    found, targets = people(3, [1], 0.0)
    found[0].keypoints = found[0].keypoints.repeat(2, 1, 1)
    found[0].scores = torch.tensor([0.5, 0.9])
    twins = np.repeat(targets[0].keypoints, 2, 0)
    twins[1, :, :2] += 400
    paired = match_people(found[0], twins, np.full(2, 4e3))
    assert torch.allclose(paired[0], found[0].keypoints[0].to(paired.dtype))


def test_pckh_leaves_out_people_without_a_head_size():
    truth = torch.rand(3, 17, 3) + 1
    sizes = torch.tensor([1.0, math.nan, 1.0])
    moved = truth.clone()
    moved[1] += 100
    assert pckh(moved, truth, sizes) == 100
    assert math.isnan(pckh(moved, truth, sizes * math.nan))
    truth[..., 2] = 0
    assert coco_head_size(truth).isnan().all()
