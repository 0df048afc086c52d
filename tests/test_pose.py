"What would bore a reader of nbs/08_pose.ipynb and nbs/07a_augment.ipynb."
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from privnb import pose as room
from privnb.augment import augment, shift_hsv
from privnb.datasets import PoseBatch
from privnb.pose import PUBLISHED, PoseEstimator, PoseLoss, has_bfloat16, pad_to_stride, to_labels
from privnb.tuning import RunningAverage, fine_tune, learning_rate, refresh_statistics


@pytest.fixture(scope="module")
def tiny():
    "The smallest estimator, frozen in evaluation mode."
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return PoseEstimator.build(width=0.0625).eval()


def batch_of(seed, n=3, per=2, height=64, width=96):
    "Random pictures with `per` people each."
    g = torch.Generator().manual_seed(seed)
    m, limit = n * per, torch.tensor([width, height])
    low = torch.rand(m, 2, generator=g) * limit * 0.4
    high = low + (0.2 + 0.4 * torch.rand(m, 2, generator=g)) * limit
    place = low[:, None] + torch.rand(m, 17, 2, generator=g) * (high - low)[:, None]
    keypoints = torch.cat([place, torch.full((m, 17, 1), 2.0)], -1)
    images, boxes = torch.rand(n, 3, height, width, generator=g), torch.cat([low, high], 1)
    index = torch.arange(n).repeat_interleave(per)
    return PoseBatch(images, keypoints, boxes, (high - low).prod(1) * 0.5, torch.arange(m), index)


def shuffled(batch, seed):
    "The same batch with its people in another order."
    order = torch.randperm(len(batch.index), generator=torch.Generator().manual_seed(seed))
    return PoseBatch(batch.images, *(getattr(batch, name)[order] for name in
                                     ("keypoints", "boxes", "areas", "identity", "index")))


def test_import_is_lazy_and_silent():
    code = ("import sys, privnb.pose as p; assert 'ultralytics' not in sys.modules;"
            "p.PoseEstimator.build(width=0.0625)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stdout and "Ultralytics" not in done.stderr


def test_order_of_people_does_not_matter(tiny):
    batch = batch_of(0, n=4, per=3)
    reference = tiny.loss(batch.images, batch)[0]
    for seed in range(4):
        mixed = shuffled(batch, seed)
        assert torch.isclose(tiny.loss(batch.images, mixed)[0], reference, rtol=1e-4)
        assert (to_labels(mixed, 64, 96)["batch_idx"].diff() >= 0).all()


def test_the_loss_is_that_of_ultralytics_criterion(tiny):
    from ultralytics.utils.loss import v8PoseLoss

    batch = batch_of(3)
    ours, theirs = (batch.images.clone().requires_grad_() for _ in range(2))
    total, terms = tiny.loss(ours, batch)
    plain, items = v8PoseLoss(tiny.network)(tiny.network(theirs), to_labels(batch, 64, 96))
    assert torch.equal(total, plain.sum() / len(batch.images))
    assert [float(terms[name.removesuffix("_loss")]) for name in items] == list(map(float, items.values()))
    slopes = [torch.autograd.grad(loss, x)[0] for loss, x in ((total, ours), (plain.sum() / 3, theirs))]
    assert torch.allclose(*slopes, rtol=1e-4, atol=1e-7) and slopes[0].abs().sum() > 0


@pytest.mark.parametrize("numbers", [2, 3])
def test_joints_are_decoded_to_the_bit(numbers):
    from ultralytics.utils.loss import v8PoseLoss

    raw = torch.randn(3, 21, 5, numbers)
    anchors = torch.rand(21, 2) * 9
    assert torch.equal(room._decode_joints(anchors, raw), v8PoseLoss.kpts_decode(anchors, raw))


def test_other_criteria_keep_their_own_decoding():
    estimator = PoseEstimator.build("yolo26n-pose", width=0.0625)
    criterion = room._in_one_pass(estimator.network.init_criterion())
    assert "kpts_decode" not in vars(criterion)


def test_loss_is_the_mean_over_equal_batches(tiny):
    once = batch_of(1, n=2)
    twice = PoseBatch(once.images.repeat(2, 1, 1, 1), once.keypoints.repeat(2, 1, 1),
                      once.boxes.repeat(2, 1), once.areas.repeat(2), once.identity.repeat(2),
                      torch.cat([once.index, once.index + 2]))
    one, two = (tiny.loss(batch.images, batch)[0] for batch in (once, twice))
    assert torch.isclose(one, two, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (50, 97), (33, 32), (96, 40)])
def test_loss_at_any_size_reaches_every_image(tiny, size):
    batch = batch_of(2, height=size[0], width=size[1])
    images = batch.images.clone().requires_grad_()
    tiny.loss(images, batch)[0].backward()
    assert images.grad.isfinite().all() and (images.grad.abs().sum((1, 2, 3)) > 0).all()


def test_bfloat16_is_used_where_the_device_has_it(tiny, monkeypatch):
    seen = []
    batch, plain = batch_of(1), tiny.network.forward
    monkeypatch.setattr(tiny, "precision", torch.bfloat16)
    monkeypatch.setattr(tiny.network, "forward", lambda images: seen.append(
        torch.is_autocast_enabled("cpu")) or plain(images))
    for known in (True, False):
        monkeypatch.setattr(room, "has_bfloat16", lambda device: known)
        assert tiny.loss(batch.images, batch)[0].isfinite()
    assert seen == [True, False] and isinstance(has_bfloat16(torch.device("cpu")), bool)


def test_some_images_without_people(tiny):
    batch = batch_of(3)
    batch.index[batch.index == 1] = 0
    total, terms = tiny.loss(batch.images, batch)
    assert total.isfinite() and all(value.isfinite() for value in terms.values())


def test_hidden_joints_count_and_absent_ones_do_not(tiny):
    batch = batch_of(4)
    before = tiny.loss(batch.images, batch)[1]["pose"]
    batch.keypoints[:, 3, 2] = 1
    assert torch.isclose(tiny.loss(batch.images, batch)[1]["pose"], before)
    batch.keypoints[:, 3] = torch.tensor([1e4, -1e4, 0.0])
    far = tiny.loss(batch.images, batch)[1]["pose"]
    batch.keypoints[:, 3] = torch.tensor([0.0, 0.0, 0.0])
    assert torch.isclose(tiny.loss(batch.images, batch)[1]["pose"], far)


def test_gains_scale_their_terms():
    torch.manual_seed(0)
    plain = PoseEstimator.build(width=0.0625).eval()
    torch.manual_seed(0)
    heavy = PoseEstimator.build(width=0.0625, gains=dict(pose=24.0)).eval()
    batch = batch_of(5)
    a, b = plain.loss(batch.images, batch)[1], heavy.loss(batch.images, batch)[1]
    assert torch.isclose(b["pose"], 2 * a["pose"]) and torch.isclose(b["box"], a["box"])


def test_pose_loss_wants_its_versions(tiny):
    batch = batch_of(6)
    with pytest.raises(ValueError, match="recovered"):
        PoseLoss()(tiny, dict(enhanced=batch.images), batch)
    alone, _ = PoseLoss(dict(enhanced=1.0, recovered=0.0))(tiny, dict(enhanced=batch.images), batch)
    assert alone == tiny.loss(batch.images, batch)[0]


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(8, 90), st.integers(8, 90), st.sampled_from([None, 64, 100]))
def test_predictions_stay_inside(tiny, n, height, width, size):
    images = torch.rand(n, 3, height, width)
    found = tiny.predict(images, confidence=0.0, limit=7, size=size, chunk=2)
    assert len(found) == n
    limit = torch.tensor([width, height])
    for people in found:
        assert people.boxes.shape == (len(people), 4)
        assert people.keypoints.shape == (len(people), 17, 3)
        assert (people.boxes >= 0).all() and (people.boxes <= limit.repeat(2)).all()
        assert (people.keypoints[..., :2] >= 0).all() and (people.keypoints[..., :2] <= limit).all()
        assert (people.scores.diff() <= 0).all()


def test_prediction_in_chunks_and_of_nothing(tiny):
    images = torch.rand(5, 3, 64, 64)
    whole, parts = tiny.predict(images, 0.0, limit=3), tiny.predict(images, 0.0, limit=3, chunk=2)
    assert all(torch.allclose(a.scores, b.scores, atol=1e-6) for a, b in zip(whole, parts))
    assert tiny.predict(torch.zeros(0, 3, 64, 64)) == []
    nothing = tiny.predict(images, confidence=1.0)[0]
    assert len(nothing) == 0 and nothing.keypoints.shape == (0, 17, 3)
    with pytest.raises(ValueError, match="^images:"):
        tiny.predict(torch.zeros(1, 1, 64, 64))


def test_prediction_restores_mixed_modes_even_after_an_error(tiny):
    estimator = PoseEstimator.build(width=0.0625)
    estimator.network.model[0].eval()
    modes = [part.training for part in estimator.modules()]
    estimator.predict(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError):
        estimator.predict(torch.rand(1, 2, 32, 32))
    assert [part.training for part in estimator.modules()] == modes


def test_loss_after_prediction_still_has_a_gradient(tiny):
    batch = batch_of(7)
    tiny.predict(batch.images)
    tiny.loss(batch.images.clone().requires_grad_(), batch)[0].backward()


def test_weights_make_the_round_trip(tiny, tmp_path):
    tiny.save_weights(tmp_path / "w.safetensors", metadata=dict(ap50=1))
    again = PoseEstimator.from_file(tmp_path / "w.safetensors")
    pairs = zip(tiny.state_dict().values(), again.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)
    heavy = PoseEstimator.build(width=0.0625, gains=dict(pose=99.0))
    heavy.save_weights(tmp_path / "h.safetensors")
    assert PoseEstimator.from_file(tmp_path / "h.safetensors").network.args.pose == 99.0
    PoseEstimator(tiny.network, dict(file="yolov8n-pose.pt")).save_weights(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="^path:.*no configuration"):
        PoseEstimator.from_file(tmp_path / "p.safetensors")  # a .pt file's network has no table here
    bare = {name: value.contiguous() for name, value in tiny.network.state_dict().items()}
    save_file(bare, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="^path:"):
        PoseEstimator.from_file(tmp_path / "b.safetensors")


def test_sixteen_joints_and_other_networks():
    estimator = PoseEstimator.build("yolo11n-pose", keypoints=16, width=0.0625).eval()
    batch = batch_of(8)
    batch.keypoints = batch.keypoints[:, :16]
    assert estimator.loss(batch.images, batch)[0].isfinite()
    assert estimator.predict(batch.images, 0.0, limit=2)[0].keypoints.shape == (2, 16, 3)


class Trap:
    "An object whose pickle writes a file."
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_published_name_does_not_run_code(tmp_path):
    path, armed = tmp_path / PUBLISHED[0], tmp_path / "armed.pt"
    torch.save(dict(model=Trap(tmp_path / "armed")), armed)
    torch.load(armed, weights_only=False)["model"].close()
    assert (tmp_path / "armed").exists()
    torch.save(dict(model=Trap(tmp_path / "sprung")), path)
    with pytest.raises(Exception):
        PoseEstimator.load_pt(path)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError, match="fetches nothing"):
        PoseEstimator.pretrained("yolov8s-pose", tmp_path)
    with pytest.raises(ValueError, match="^name:"):
        PoseEstimator.pretrained("yolov8n")


@pytest.mark.parametrize("trusted", [False, True])
def test_a_file_of_ultralytics_is_read(tiny, tmp_path, trusted):
    path = tmp_path / ("mine.pt" if trusted else "yolov8n-pose.pt")
    fresh = PoseEstimator.build(width=0.0625)
    network = fresh.network
    network.args = vars(network.args)
    torch.save(dict(model=network.half(), ema=None, train_args={}), path)
    if trusted:
        with pytest.warns(UserWarning, match="pickle"):
            estimator = PoseEstimator.load_pt(path, trusted=True)
    else:
        estimator = PoseEstimator.load_pt(path)
    batch = batch_of(9)
    assert next(estimator.parameters()).dtype == torch.float32 and not estimator.training
    assert estimator.loss(batch.images, batch)[0].isfinite()


def test_fine_tuning_repeats_batches_and_keeps_the_mode():
    torch.manual_seed(0)
    estimator, seen = PoseEstimator.build(width=0.0625).eval(), []
    history = fine_tune(estimator, [batch_of(0), batch_of(1)], 3, progress=False,
                        generator=torch.Generator().manual_seed(0),
                        callback=lambda step, terms: seen.append(step))
    assert len(history) == 3 and seen == [0, 1, 2] and not estimator.training
    assert set(history[0]) == {"loss", "lr", "box", "pose", "kobj", "cls", "dfl"}
    for batches, steps in ([], 0), (iter([batch_of(0)]), 1):  # what cannot be gone through again
        with pytest.warns(UserWarning, match="^batches: cannot be gone through again"):
            assert len(fine_tune(estimator, batches, 3, progress=False)) == steps
    with pytest.raises(ValueError, match="^steps:"):
        fine_tune(estimator, [batch_of(0)], 0)


def test_statistics_are_those_of_the_images():
    torch.manual_seed(0)
    estimator, images = PoseEstimator.build(width=0.0625).eval(), batch_of(0).images
    refresh_statistics(estimator, [images])
    first = estimator.network.model[0]
    with torch.no_grad():
        assert torch.allclose(first.bn.running_mean, first.conv(images).mean((0, 2, 3)), atol=1e-5)
    assert first.bn.momentum == 0.03 and not estimator.training


@given(st.integers(1, 500), st.integers(0, 50))
def test_learning_rate_is_positive_and_bounded(steps, warmup):
    rates = [learning_rate(step, steps, 1.0, warmup) for step in range(steps)]
    assert 0 < min(rates) and max(rates) <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.floats(0, 0.6), st.floats(0, 0.6))
def test_augmented_labels_stay_consistent(seed, scale, translate):
    batch = batch_of(seed)
    made = augment(batch, torch.Generator().manual_seed(seed), scale=scale, translate=translate)
    limit = torch.tensor([96.0, 64.0])
    assert made.images.shape == batch.images.shape and made.images.isfinite().all()
    names = "boxes", "keypoints", "areas", "identity", "index"
    assert len({len(getattr(made, name)) for name in names}) == 1
    assert (made.boxes >= 0).all() and (made.boxes <= limit.repeat(2)).all()
    assert ((made.boxes[:, 2:] - made.boxes[:, :2]) >= 4).all()
    seen = made.keypoints[..., 2] > 0
    place = made.keypoints[..., :2][seen]
    assert ((place >= 0) & (place < limit)).all()
    for person, image in zip(made.identity, made.index):
        assert batch.index[person] == image


def test_augmentation_leaves_its_input_and_nobody_alone():
    batch = batch_of(0)
    before = batch.images.clone(), batch.keypoints.clone()
    augment(batch, torch.Generator().manual_seed(0), scale=0.3, noise=0.1)
    assert torch.equal(batch.images, before[0]) and torch.equal(batch.keypoints, before[1])
    nobody = PoseBatch(batch.images, batch.keypoints[:0], batch.boxes[:0], batch.areas[:0],
                       batch.identity[:0], batch.index[:0])
    assert len(augment(nobody, torch.Generator().manual_seed(0), translate=0.2).boxes) == 0
    with pytest.raises(ValueError, match="^scale:"):
        augment(batch, torch.Generator(), scale=1.0)


def test_hsv_agrees_with_the_standard_library():
    import colorsys
    g = torch.Generator().manual_seed(0)
    images, (h, s, v) = torch.rand(1, 3, 6, 6, generator=g), (0.1, 0.6, 0.9)
    made = shift_hsv(images, *(torch.tensor([x]) for x in (h, s, v)))
    for before, after in zip(images[0].flatten(1).T, made[0].flatten(1).T):
        a, b, c = colorsys.rgb_to_hsv(*before.tolist())
        expected = colorsys.hsv_to_rgb((a + h) % 1, min(b * s, 1), min(c * v, 1))
        assert torch.allclose(after, torch.tensor(expected), atol=1e-5)


def test_padding_keeps_coordinates():
    images = torch.rand(1, 3, 33, 65)
    assert torch.equal(pad_to_stride(images)[:, :, :33, :65], images)
    assert pad_to_stride(images, 8).shape == (1, 3, 40, 72)


@pytest.mark.parametrize("confidence", [-0.1, 1.5, float("nan")])
def test_a_confidence_beyond_its_range_is_named(confidence):
    from privnb.pose import PoseEstimator
    estimator = PoseEstimator.build(width=0.1, depth=0.1)
    with pytest.raises(ValueError, match="^confidence:"):
        estimator.predict(torch.zeros(1, 3, 32, 32), confidence=confidence)


# the average over the last steps

def test_the_running_average_is_the_formula():
    norm = torch.nn.BatchNorm1d(3)
    average = RunningAverage(norm, decay=0.7)
    wanted = norm.weight.detach().clone()
    for step in range(12):
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(step))
        norm.num_batches_tracked += 5
        average.update(step, {"loss": 1.0})
        share = min(0.7, (1 + step) / (10 + step))
        wanted = share * wanted + (1 - share) * norm.weight.detach()
        assert torch.allclose(average.weights["weight"], wanted, atol=1e-6)
    assert average.weights["num_batches_tracked"] == norm.num_batches_tracked == 60
    assert not torch.equal(average.weights["weight"], norm.weight)


def test_the_running_average_takes_modules_without_counters_and_no_other_decay():
    average = RunningAverage(torch.nn.Linear(1, 1), decay=0)
    average.module.weight.data.fill_(3.0)
    average.update(0)
    assert average.weights["weight"].item() == 3.0
    for wrong in (1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="decay: got"):
            RunningAverage(torch.nn.Linear(1, 1), decay=wrong)
