"Systems on disk, pictures of every kind, and what happens when something is wrong: it fails closed."
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from privnb.finding import PROTECT, merge_findings
from privnb.guidance import Guidance
from privnb.images import ImageError, load_image, read_metadata, save_image, to_tensor
from privnb.pose import Prediction
from privnb.records import RecoveryRefused, digest
from privnb.system import PrivacySystem, SystemConfig
from privnb.weights import WeightsError, load_weights, shipped

few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def tiny(**options):
    small = dict(guidance=Guidance("pixelate", 12), portrait=64, pose={"width": 0.125},
                 options={"width": 8})
    return SystemConfig(**{**small, **options})


def build(seed=0, **options):
    torch.manual_seed(seed)
    return PrivacySystem(tiny(**options)).eval()


@pytest.fixture(scope="module")
def system():
    return build()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, system):
    return system.save(tmp_path_factory.mktemp("system") / "s")


@pytest.fixture
def folder(tmp_path, saved):
    "A copy that may be spoilt."
    (tmp_path / "s").mkdir()
    for path in saved.iterdir():
        (tmp_path / "s" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "s"


def picture(height=90, width=120, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def covered(record, shape):
    "Pixels that a record says were enhanced or filled."
    mask = np.zeros(shape[:2], bool)
    for x0, y0, x1, y1 in record["squares"] + record["filled"]:
        mask[max(0, y0):max(0, y1), max(0, x0):max(0, x1)] = True
    return mask


# on disk

@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded(tmp_path, system, half):
    system.save(tmp_path, half=half, notes={"steps": np.float32(7)})
    again = PrivacySystem.load(tmp_path)
    assert again.fingerprint() == system.fingerprint() and again.config == system.config
    assert not again.training and again.notes["steps"] == 7
    limit = 1e-3 if half else 0
    for name, value in system.state_dict().items():
        other = again.state_dict()[name]
        assert other.dtype == value.dtype and (other - value).abs().max() <= limit * value.abs().max()
    boxes = np.array([[10, 10, 60, 80]])
    one, two = (s.enhance(picture(), boxes).image.astype(int) for s in (system, again))
    assert np.abs(one - two).max() <= (1 if half else 0)


def test_half_precision_halves_the_files(tmp_path, system, saved):
    system.save(tmp_path, half=True)
    for name in ("enhancer", "recoverer", "pose"):
        sizes = [(f / f"{name}.safetensors").stat().st_size for f in (tmp_path, saved)]
        assert 0.45 < sizes[0] / sizes[1] < 0.65


def test_nothing_is_overwritten_unasked(folder, system):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ImageError, match="exists already"):
        build(1).save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    build(1).save(folder, overwrite=True)
    assert PrivacySystem.load(folder).fingerprint() == build(1).fingerprint() != system.fingerprint()


def refused(folder, **options):
    with pytest.raises(WeightsError) as caught:
        PrivacySystem.load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_files(folder, tmp_path):
    assert "not a system's folder" in refused(tmp_path / "absent")
    assert "not a system's folder" in refused(folder / "config.json")
    (folder / "recoverer.safetensors").unlink()
    assert PrivacySystem.load(folder).recoverer is None
    assert "recoverer.safetensors: no such file" in refused(folder, recoverer=True)
    for name in ("pose", "enhancer"):
        (folder / f"{name}.safetensors").unlink()
        assert f"{name}.safetensors: no such file" in refused(folder)


def test_a_camera_may_leave_the_recoverer_alone(folder):
    (folder / "recoverer.safetensors").write_bytes(b"")
    assert PrivacySystem.load(folder, recoverer=False).recoverer is None
    assert "recoverer.safetensors: damaged" in refused(folder)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("name", ["enhancer", "recoverer", "pose"])
def test_cut_files(folder, name, share):
    path = folder / f"{name}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    assert f"{name}.safetensors: damaged" in refused(folder)


def test_foreign_files(folder):
    path = folder / "enhancer.safetensors"
    path.write_bytes((folder / "pose.safetensors").read_bytes())
    assert "another architecture" in refused(folder)
    path.write_bytes(b"PK\x03\x04 a pickle in a zip" * 99)
    assert "damaged" in refused(folder)
    path.unlink()
    path.mkdir()
    assert "enhancer.safetensors" in refused(folder)


@pytest.mark.parametrize("change", [{"options": {"width": 16}}, {"guided": False}])
def test_weights_of_another_architecture(folder, change):
    content = json.loads((folder / "config.json").read_text())
    content["system"].update(change)
    (folder / "config.json").write_text(json.dumps(content))
    message = refused(folder)
    assert "enhancer.safetensors: weights of another architecture" in message and "e.g. " in message


def test_a_recoverer_of_another_enhancer(folder, tmp_path):
    other = build(1).save(tmp_path / "other")
    (folder / "recoverer.safetensors").write_bytes((other / "recoverer.safetensors").read_bytes())
    assert "belongs to another enhancer" in refused(folder)
    content = json.loads((other / "config.json").read_text())
    content["system"]["guidance"]["radius"] = 3.0
    (other / "config.json").write_text(json.dumps(content))
    assert "belongs to another enhancer" in refused(other)


def test_damaged_configs(folder):
    good = json.loads((folder / "config.json").read_text())["system"]
    for text in ("", "{", "[]", "3", "{}", '{"system": 3}', '{"system": {}}',
                 json.dumps({"system": {**good, "colour": 1}}),
                 json.dumps({"system": {**good, "generator": "gan"}}),
                 json.dumps({"system": {**good, "options": {"wide": 1}}}),
                 json.dumps({"system": {**good, "options": 3}}),
                 json.dumps({"system": {**good, "guidance": {"kind": "fog"}}}),
                 json.dumps({"system": {**good, "guidance": None}})):
        (folder / "config.json").write_text(text)
        assert "config.json: damaged" in refused(folder), text
    (folder / "config.json").write_bytes(b"\xff\xfe")
    assert "config.json: damaged" in refused(folder)


def test_other_pose_weights(folder, tmp_path):
    other = build(2).save(tmp_path / "other")
    mixed = PrivacySystem.load(folder, pose=other / "pose.safetensors")
    wanted = build(2).pose.state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in mixed.pose.state_dict().items())
    assert "enhancer.safetensors" in refused(folder, pose=other / "enhancer.safetensors")


def test_refused_weights_leave_the_module_alone(folder, system):
    before = {k: v.clone() for k, v in system.enhancer.state_dict().items()}
    with pytest.raises(WeightsError):
        load_weights(system.enhancer, folder / "pose.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in system.enhancer.state_dict().items())
    metadata = load_weights(system.enhancer, folder / "enhancer.safetensors")
    assert metadata["part"] == "enhancer" and json.loads(metadata["config"]) == system.config.to_dict()


def test_shipped_weights_lie_in_the_package():
    assert shipped("x").parts[-4:] == ("privnb", "assets", "weights", "x")


def test_configs_round_trip_and_refuse():
    config = tiny(guidance=Guidance("blur", 8, reading="kernel"), native=False, guided=False)
    assert SystemConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match=r"unknown entries \['colour'\]"):
        SystemConfig.from_dict({**config.to_dict(), "colour": 1})


def test_what_the_fingerprint_sees(system):
    names = {build(generator=g, options=o).fingerprint()
             for g, o in (("edge", {"width": 8}), ("unet7", {"ngf": 4}), ("resnet6", {"ngf": 4}))}
    assert len(names) == 3 and system.fingerprint() in names
    assert build(portrait=65).fingerprint() != system.fingerprint()
    assert build(pose={"width": 0.25}).config != system.config
    one = build()
    one.pose.requires_grad_(False)
    next(one.pose.parameters()).add_(1)
    next(one.recoverer.parameters()).data.add_(1)
    assert one.fingerprint() == system.fingerprint()
    next(one.enhancer.parameters()).data[0, 0] += 0.5
    assert one.fingerprint() != system.fingerprint()


# batches

@pytest.mark.parametrize("options", [
    {}, {"native": False}, {"guided": False}, {"guidance": Guidance("noise")},
    {"generator": "unet7", "options": {"ngf": 4}}, {"generator": "resnet6", "options": {"ngf": 4}},
    {"generator": "unet7", "options": {"ngf": 4}, "guided": False, "native": False}])
def test_the_way_there_and_back(options):
    system = build(**options)
    images = to_tensor(np.stack([picture(seed=n) for n in range(2)]))
    boxes = torch.tensor([[5.0, 5, 40, 80], [30, 20, 110, 88], [60, 50, 90, 200], [-30, 0, 20, 30]])
    index = torch.tensor([1, 0, 1, 1])
    enhanced, people = system.enhance_batch(images, boxes, index)
    back, portraits = system.recover_batch(enhanced, people.squares, index)
    sides = (people.squares[:, 2] - people.squares[:, 0]).int().tolist()
    wanted = sides if system.config.native else [system.config.portrait] * 4
    for part in (people.originals, people.guided, people.enhanced, portraits):
        assert [p.shape[-1] for p in part] == wanted
    for x, square, n in zip(people.originals, people.squares.int().tolist(), index.tolist()):
        x0, y0, x1, y1 = square
        if system.config.native and min(square) >= 0 and x1 <= 120 and y1 <= 90:
            assert torch.equal(x, images[n, :, y0:y1, x0:x1])
    level = torch.stack([p.mean() for p in people.enhanced]) * 255
    assert torch.isfinite(level).all() and back.shape == images.shape
    assert all(((p * 255) - (p * 255).round()).abs().max() < 1e-2 for p in people.enhanced)
    (back - images).abs().mean().backward()
    assert all(p.grad is not None for p in system.enhancer.parameters())
    assert all(p.grad is not None for p in system.recoverer.parameters())


@pytest.mark.parametrize("generator", ["edge", "unet7", "resnet6"])
def test_a_guided_generator_starts_from_its_guidance(generator):
    options = {"width": 8} if generator == "edge" else {"ngf": 8}
    system = build(generator=generator, options=options, carrier=0.0)
    x = to_tensor(picture(64, 64))
    guided, made = system.enhance_portraits(x)
    assert torch.equal(guided, system.guide(x)) and (made - guided).abs().mean() < 0.005


def test_blocks_of_native_mosaics_are_whole_cells():
    x = torch.rand(1, 3, 96, 96)
    for radius, native, block in ((5, True, 8), (8, True, 12), (9, True, 16), (10, False, 15)):
        system = build(guidance=Guidance("pixelate", radius), portrait=64, native=native)
        guided, _ = system.enhance_portraits(x)
        cells = guided.unfold(2, block, block).unfold(3, block, block)
        assert (cells.amax((4, 5)) - cells.amin((4, 5))).max() == 0, (radius, native)
        assert (guided[..., block] != guided[..., block - 1]).any()


def test_the_radius_grows_with_the_portrait():
    system = build(guidance=Guidance("pixelate", 16), portrait=64)
    for side, block in ((32, 8), (64, 16), (128, 32)):
        guided, _ = system.enhance_portraits(torch.rand(1, 3, side, side))
        cells = guided.unfold(2, block, block).unfold(3, block, block)
        assert (cells.amax((4, 5)) - cells.amin((4, 5))).max() == 0


def test_noise_comes_from_the_generator():
    system = build(guidance=Guidance("noise"))
    images, boxes = to_tensor(picture()), torch.tensor([[10.0, 10, 60, 80]])
    index = torch.zeros(1, dtype=torch.int64)
    runs = [system.enhance_batch(images, boxes, index, torch.Generator().manual_seed(s))[0]
            for s in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    free = [system.enhance(picture(), boxes).image for _ in range(2)]
    assert (free[0] != free[1]).any()


def test_nobody_in_a_batch(system):
    images, none = torch.rand(2, 3, 40, 50), torch.zeros(0, 4)
    same, people = system.enhance_batch(images, none, torch.zeros(0, dtype=torch.int64))
    back, portraits = system.recover_batch(same, people.squares, people.index)
    assert torch.equal(same, images) and torch.equal(back, images) and portraits == people.originals == []


def test_without_a_recoverer():
    camera = PrivacySystem(tiny(), recoverer=False)
    protected = camera.enhance(picture(), np.array([[10, 10, 60, 80]]))
    with pytest.raises(WeightsError, match="this system carries none"):
        camera.recover(protected.image, protected.record)


# photographs

boxes_anywhere = st.lists(st.tuples(st.floats(-60, 130), st.floats(-60, 100), st.floats(0, 120),
                                    st.floats(0, 120)), max_size=4)


@few
@given(rows=boxes_anywhere, seed=st.integers(0, 99), native=st.booleans())
def test_the_background_is_bit_identical(rows, seed, native):
    "Also: everybody in the picture is protected, everybody outside is dropped, and it comes back."
    system = build(native=native)
    image = picture(seed=seed)
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in rows], np.float32).reshape(-1, 4)
    protected = system.enhance(image, boxes)
    mask = covered(protected.record, image.shape)
    assert (protected.image[~mask] == image[~mask]).all()
    assert (protected.guided[~mask] == image[~mask]).all()
    for x0, y0, x1, y1 in np.clip(boxes, 0, [120, 90, 120, 90]):
        if x1 > x0 and y1 > y0:
            assert mask[int(y0):int(np.ceil(y1)), int(x0):int(np.ceil(x1))].all()
    inside = np.clip(boxes, 0, [120, 90, 120, 90])
    assert protected.people == ((inside[:, 2:] > inside[:, :2]).all(1)).sum()
    back = system.recover(protected.image, protected.record)
    assert (back[~mask] == image[~mask]).all() and back.dtype == np.uint8


def test_zero_people(system):
    for boxes in (np.zeros((0, 4)), [], torch.zeros(0, 4), [[500, 500, 600, 600]], [[-50, 3, 0, 60]]):
        protected = system.enhance(picture(), boxes)
        assert protected.people == 0 and (protected.image == picture()).all()
        assert (system.recover(protected.image, protected.record) == picture()).all()


@pytest.mark.parametrize("boxes", [
    [1, 2, 3, 4], [[1, 2, 3]], [[[1, 2, 3, 4]]], [[1, 2, 3, 4, 5]], np.zeros((4, 2)),
    [[60, 10, 10, 80]], [[10, 80, 60, 10]], [[np.nan, 1, 9, 9]], [[1, 1, np.inf, 9]]])
def test_wrong_boxes_are_refused_and_not_forgotten(system, boxes):
    with pytest.raises(ValueError, match="boxes"):
        system.enhance(picture(), boxes)


@pytest.mark.parametrize("image", [
    np.zeros((9, 9)), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8), None,
    np.zeros((1, 9, 9, 3), np.uint8), np.zeros((0, 9, 3), np.uint8), torch.zeros(3, 9, 9)])
def test_wrong_pictures_are_refused(system, image):
    with pytest.raises(ValueError, match="(image|array)"):
        system.enhance(image, np.zeros((0, 4)))


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (20, 20)])
def test_extreme_pictures(system, shape):
    image = picture(*shape)
    protected = system.enhance(image, [[0, 0, shape[1], shape[0]]])
    assert protected.people == 1 and protected.image.shape == image.shape
    assert system.recover(protected.image, protected.record).shape == image.shape
    assert len(system.estimate(image)) >= 0


def test_tiny_people_are_covered_everywhere(system):
    boxes = [[30.4, 10.6, 37.2, 20.0], [0, 0, 90, 90]]
    protected = system.enhance(picture(), boxes)
    assert protected.record["filled"] == [[30, 10, 38, 20]] and len(protected.record["squares"]) == 1
    back = system.recover(protected.image, protected.record)
    for shown in (protected.image, protected.guided, back):
        assert (shown[10:20, 30:38] == 128).all()
    assert not (back[10:20, 38:46] == 128).all()


def test_the_limit_of_tiny(system):
    for long, filled in ((19.9, 1), (20.1, 0)):
        protected = system.enhance(picture(), [[5, 5, 5 + long, 10]])
        assert len(protected.record["filled"]) == filled
    cut = system.enhance(picture(), [[-100, 0, 15, 18]])
    assert cut.record["filled"] == [[0, 0, 15, 18]]


class Broken(nn.Module):
    "A generator that fails on dark portraits."

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, base=None):
        made = base.clone()
        for k in range(len(x)):
            if x[k, :3].mean() < 0.4:
                made[k, 1, 3, 3] = self.value
        return made


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_whoever_the_generator_fails_on_is_covered(value):
    system = build()
    system.enhancer, system.recoverer = Broken(value), Broken(0.5)
    image = picture(100, 200)
    image[:, :100] //= 8
    boxes = [[10, 10, 50, 90], [120, 10, 160, 90], [20, 15, 60, 95]]
    protected = system.enhance(image, boxes)
    assert protected.record["filled"] == [[10, 10, 50, 90], [20, 15, 60, 95]]
    assert len(protected.record["squares"]) == 1 and protected.people == 3
    back = system.recover(protected.image, protected.record)
    for shown in (protected.image, protected.guided, back):
        assert (shown[10:90, 10:50] == 128).all() and (shown[15:95, 20:60] == 128).all()
    mask = covered(protected.record, image.shape)
    assert (protected.image[~mask] == image[~mask]).all() and not mask.all()
    torch.testing.assert_close(torch.from_numpy(protected.image), torch.from_numpy(
        np.where(mask[..., None], protected.guided, image)))


def test_painting_order_is_kept_in_the_record(system):
    boxes = np.array([[60, 5, 100, 85], [5, 5, 60, 60], [40, 10, 70, 88]])
    one, two = system.enhance(picture(), boxes), system.enhance(picture(), boxes[::-1].copy())
    assert one.record == two.record and (one.image == two.image).all()
    bottoms = [square[3] for square in one.record["squares"]]
    assert bottoms == sorted(bottoms)


# records

def test_records_survive_a_file(tmp_path, system):
    boxes = [[10, 10, 60, 80], [70, 70, 75, 80]]
    protected = system.enhance(picture(), boxes)
    path = save_image(protected.image, tmp_path / "a.png", metadata=protected.record)
    back = system.recover(load_image(path), read_metadata(path))
    assert (back == system.recover(protected.image, protected.record)).all()
    path = save_image(protected.image, tmp_path / "a.jpg", metadata=protected.record)
    with pytest.raises(RecoveryRefused, match="changed after"):
        system.recover(load_image(path), read_metadata(path))
    assert system.recover(load_image(path), read_metadata(path), changed=True).shape == back.shape


def test_records_that_are_refused(system):
    protected = system.enhance(picture(), [[10, 10, 60, 80]])
    image, record = protected.image, protected.record
    for wrong in (None, {}, [], "x", {k: v for k, v in record.items() if k != "squares"}):
        with pytest.raises(RecoveryRefused, match="carries no record"):
            system.recover(image, wrong)
    with pytest.raises(RecoveryRefused, match="another system"):
        build(1).recover(image, record, changed=True)
    with pytest.raises(RecoveryRefused, match="changed after"):
        system.recover(image[:-1], record)
    for squares in (3, "abc", [[1, 2, 3]], [["a"] * 4], [[1, 2], [3]], None, [[0, 0, 10**5, 10**5]]):
        with pytest.raises(RecoveryRefused, match="damaged"):
            system.recover(image, {**record, "squares": squares})
    for squares in ([[0, 0, 10, 20]], [[0, 0, -10, -10]], [[float("nan")] * 4]):
        with pytest.raises(ValueError, match="boxes"):
            system.recover(image, {**record, "squares": squares})


@few
@given(y=st.integers(0, 8), x=st.integers(0, 8), c=st.integers(0, 2), bit=st.integers(0, 7))
def test_every_bit_changes_the_digest(y, x, c, bit):
    image = picture(9, 9)
    other = image.copy()
    other[y, x, c] ^= 1 << bit
    assert digest(image) != digest(other) and digest(image) == digest(image.copy())


def test_the_digest_sees_the_shape():
    image = picture(6, 8)
    assert digest(image) != digest(image.reshape(8, 6, 3))
    turned = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert digest(turned) == digest(image)


# finding people

def test_of_two_findings_the_surer_stays():
    def found(*rows):
        boxes = torch.tensor([row[:4] for row in rows]).float().reshape(-1, 4)
        scores = torch.tensor([row[4] for row in rows])
        return Prediction(boxes, scores, torch.zeros(len(rows), 17, 3))

    one = found((0, 0, 10, 10, 0.6), (50, 50, 60, 60, 0.5))
    two = found((0, 0, 10, 11, 0.9), (50, 50, 53, 60, 0.4))
    merged = merge_findings([one, two])
    assert merged.boxes.tolist() == [[0, 0, 10, 11], [50, 50, 60, 60], [50, 50, 53, 60]]
    assert len(merge_findings([found(), found()])) == 0 and len(merge_findings([found(), one])) == 2
    assert len(merge_findings([found((0, 0, 10, 10, 0.6), (0, 0, 10, 6, 0.5))])) == 1  # at one size, too


def test_enhance_asks_the_estimator(system, monkeypatch):
    asked = []

    def predict(images, confidence, size):
        asked.append((size, confidence))
        rows = torch.tensor([[10.0, 10, 60, 80]])
        return [Prediction(rows, torch.tensor([0.9]), torch.zeros(1, 17, 3))]

    monkeypatch.setattr(system.pose, "predict", predict)
    assert system.enhance(picture(120, 120)).people == 1 and asked == [(192, PROTECT)]
    assert system.enhance(picture(10, 700)).people <= 1 and asked[1:] == [(192, PROTECT), (288, PROTECT)]


def test_whoever_is_doubtful_is_protected_and_not_drawn(monkeypatch):
    system, asked = build(), []
    boxes = torch.tensor([[10.0, 10, 50, 60], [60, 10, 90, 60]])
    scores = torch.tensor([0.9, 0.06])

    def predict(images, confidence=0.25, **options):
        asked.append(confidence)
        kept = scores >= confidence
        return [Prediction(boxes[kept], scores[kept], torch.zeros(int(kept.sum()), 17, 3))]

    monkeypatch.setattr(system.pose, "predict", predict)
    image = np.full((100, 100, 3), 90, np.uint8)
    assert system.enhance(image).people == 2 and set(asked) == {PROTECT}
    assert len(system.estimate(image)) == 1 and system.enhance(image, confidence=0.5).people == 1


class Seeing(nn.Module):
    "An estimator that finds the same boxes everywhere, in the picture's own pixels."

    def __init__(self, boxes, scores):
        super().__init__()
        self.held = nn.Parameter(torch.zeros(1))
        self.found = Prediction(torch.tensor(boxes).float(), torch.tensor(scores),
                                torch.zeros(len(boxes), 17, 3))

    def predict(self, images, confidence, size):
        sure = self.found.scores >= confidence
        return [Prediction(*(part[sure] for part in vars(self.found).values()))]


def test_whoever_a_finder_alone_is_surer_of_is_protected(tmp_path, system):
    image = picture(120, 160)
    own, other = [10.0, 10.0, 50.0, 90.0], [90.0, 20.0, 140.0, 110.0]
    pose, before = system.pose, len(system.state_dict())
    try:
        system.pose = Seeing([own], [0.06])
        assert system.find(image).boxes.tolist() == [own]
        for score, found in ((0.14, [own]), (0.16, [other, own])):
            system.finders = [Seeing([other], [score])]
            assert system.find(image).boxes.tolist() == found
            assert system.enhance(image).people == len(found)
        system.finders = [Seeing([[11.0, 10.0, 50.0, 90.0], other], [0.5, 0.02])]
        assert system.find(image).scores.tolist() == [0.5]  # one person, seen twice
        assert system.find(image, 0.9).boxes.shape == (0, 4)
        assert system.estimate(image, 0.05).boxes.tolist() == [own]
        system.pose = pose
        assert len(system.state_dict()) == before  # finders are no part of a system
        assert PrivacySystem.load(system.save(tmp_path / "again")).finders == []
    finally:
        system.pose, system.finders = pose, []
