"The runner without torch against the training side, for frames and boxes of any kind."
import copy
import json
import math
import platform
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb import edge as edge_room
from privnb import frames, stream
from privnb.edge import EdgeError, EdgeSystem
from privnb.export import export_system
from privnb.figures import render_scenes
from privnb.frames import PROTECT
from privnb.guidance import Guidance
from privnb.images import to_tensor
from privnb.metrics import psnr
from privnb.portable import export_part
from privnb.portraits import crop_portraits, portrait_mask
from privnb.pose import PoseEstimator, _letterbox
from privnb.scenes import make_clip, make_scene
from privnb.sight import Found, decode, letterbox, places, suppress
from privnb.system import PrivacySystem, SystemConfig
from privnb.weights import shipped

ROOT = Path(__file__).resolve().parent.parent
few = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def system():
    return PrivacySystem.load("single")


@pytest.fixture(scope="module")
def folder(system, tmp_path_factory):
    out = tmp_path_factory.mktemp("camera")
    for part in ("enhancer", "pose"):
        export_part(system, part, out / f"{part}.onnx", opset=17, side=96, count=2)
    return out


@pytest.fixture(scope="module")
def edge(folder):
    return EdgeSystem(folder, threads=1)


def noise(height, width, seed=0):
    "A frame of smooth colours with noise on it, (H, W, 3) uint8."
    rng = np.random.default_rng(seed)
    rough = rng.uniform(0, 255, (height // 16 + 2, width // 16 + 2, 3)).repeat(16, 0).repeat(16, 1)
    return np.clip(rough[:height, :width] + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def levels(one, other):
    return np.abs(one.astype(int) - other)


@st.composite
def frames_and_boxes(draw):
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    edges = st.floats(-60, 400, width=32)
    boxes = []
    for _ in range(draw(st.integers(0, 8))):
        (x0, x1), (y0, y1) = (sorted((draw(edges), draw(edges))) for _ in range(2))
        boxes.append((x0, y0, x1, y1))
    return noise(height, width, draw(st.integers(0, 99))), np.array(boxes, np.float32).reshape(-1, 4)


# parity

@given(frames_and_boxes())
@few
def test_frames_equal_the_training_sides(system, edge, drawn):
    frame, boxes = drawn
    ours, wanted = edge.enhance(frame, boxes), system.enhance(frame, boxes)
    apart = levels(ours.image, wanted.image)
    assert {k: v for k, v in ours.record.items() if k != "digest"} == {
        k: v for k, v in wanted.record.items() if k != "digest"}
    assert apart.max() <= 2 and (apart > 0).mean() < 1e-3 and (apart > 1).mean() < 1e-4
    if not apart.any():
        assert ours.record["digest"] == wanted.record["digest"]


@contextmanager
def whole_squares(edge):
    "The runner without knowledge of how far its network sees."
    known = edge.content["reach"]
    edge.content["reach"] = None
    try:
        yield
    finally:
        edge.content["reach"] = known


@given(frames_and_boxes(), st.sampled_from(["left", "right", "top", "bottom"]))
@few
def test_what_nobody_sees_changes_nothing(edge, drawn, border):
    frame, boxes = drawn
    height, width = frame.shape[:2]
    thin = {"left": (0, 0, 20, height), "right": (width - 20, 0, width, height),
            "top": (0, 0, width, 20), "bottom": (0, height - 20, width, height)}[border]
    boxes = np.concatenate([boxes, np.array([thin], np.float32)])
    ours = edge.enhance(frame, boxes)
    with whole_squares(edge):
        whole = edge.enhance(frame, boxes)
    assert levels(ours.image, whole.image).max(initial=0) <= 1
    assert {**ours.record, "digest": 0} == {**whole.record, "digest": 0}


@given(frames_and_boxes())
@few
def test_a_part_holds_what_is_seen_and_its_reach(edge, drawn):
    frame, boxes = drawn
    squares, known = frames.sort_people(boxes, frame.shape, edge.rules)[0], edge.content["reach"]
    owner = np.full(frame.shape[:2], -1)
    for k, (left, top, right, bottom) in enumerate(np.maximum(squares, 0)):
        owner[top:bottom, left:right] = k
    for k, (square, part) in enumerate(zip(squares, edge_room._parts(edge, frame.shape, squares, True))):
        rows, columns = np.nonzero(owner == k)
        if not len(rows):
            assert (part[:2] == part[2:]).any()
            continue
        least, most = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
        assert ((part[:2] <= np.maximum(least - known, square[:2])) & (
            part[2:] >= np.minimum(most + known, square[2:]))).all()
        assert ((least - part[:2] < known + 8) & (part[2:] - most < known + 8)).all()
        assert ((part - np.tile(square[:2], 2)) % 8 == 0).all()


def test_a_spoilt_portrait_does_not_bare_who_lies_under_it(edge, monkeypatch):
    class Broken:
        def __init__(self, session): self.session = session
        def get_inputs(self): return self.session.get_inputs()

        def run(self, names, feed):
            made = self.session.run(names, feed)[0]
            marked = (feed["portrait"].max((1, 2, 3)) == 1)  # white is only on the later one's square
            made[marked] = np.nan
            return [made]

    frame = np.minimum(noise(200, 300), 200)
    frame[190, 200] = 255
    boxes = np.array([[20, 20, 130, 150], [150, 10, 170, 195]], np.float32)
    squares = frames.sort_people(boxes, frame.shape, edge.rules)[0]
    assert squares[0, 2] < 200 and edge_room._parts(edge, frame.shape, squares, True)[0, 2] < 130
    monkeypatch.setattr(edge, "enhancer", Broken(edge.enhancer))
    ours = edge.enhance(frame, boxes)
    with whole_squares(edge):
        assert np.array_equal(ours.image, edge.enhance(frame, boxes).image)
    assert len(ours.record["squares"]) == len(ours.record["filled"]) == 1


@pytest.mark.parametrize("count", range(9))
def test_batches_of_any_size(system, edge, count):
    frame = noise(160, 400, count)
    boxes = [(10 + 40 * k, 20, 60 + 40 * k, 110) for k in range(count)]
    ours, wanted = edge.enhance(frame, boxes), system.enhance(frame, boxes)
    assert ours.people == count and levels(ours.image, wanted.image).max(initial=0) <= 1
    assert count or np.array_equal(ours.image, frame)


def test_people_are_found_as_by_the_training_side(system, edge):
    for k in range(8):
        scene = make_scene(31, k, size=(240, 320), people=(0, 3), split="test")
        ours, wanted = edge.find(scene.image), system.estimate(scene.image)
        assert len(ours) == len(wanted)
        assert np.allclose(ours.boxes, wanted.boxes, atol=1e-2)
        assert np.allclose(ours.scores, wanted.scores, atol=1e-4)
        assert np.allclose(ours.keypoints, wanted.keypoints, atol=1e-2)


@pytest.fixture(scope="module")
def second(folder):
    "The pretrained estimator and its file."
    other = PrivacySystem.load("single")
    other.pose = PoseEstimator.from_file(shipped("pose.safetensors"))
    export_part(other, "pose", folder / "pretrained.onnx", opset=17, side=96, count=2)
    return other.pose, folder / "pretrained.onnx"


@pytest.mark.parametrize("confidence", [0.05, 0.25, 0.5])
def test_two_estimators_find_as_on_the_training_side(folder, second, confidence):
    system, both = PrivacySystem.load("single"), EdgeSystem(folder, 1, finders=(second[1],))
    system.finders = [second[0]]
    for k in range(6):
        scene = make_scene(35, k, size=(240, 320), people=(2, 6), split="test")
        ours, wanted = both.find(scene.image, confidence), system.find(scene.image, confidence)
        assert len(ours) == len(wanted)
        assert np.allclose(ours.boxes, wanted.boxes, atol=1e-2)
        assert np.allclose(ours.scores, wanted.scores, atol=1e-4)


def test_whom_the_own_estimator_overlooks_another_sees(folder, second, tmp_path):
    blind = PrivacySystem.load("single")
    torch.manual_seed(0)
    blind.pose = PoseEstimator.build(width=0.1875).eval()
    export_part(blind, "pose", tmp_path / "pose.onnx", opset=17, side=96, count=1)
    (tmp_path / "enhancer.onnx").write_bytes((folder / "enhancer.onnx").read_bytes())
    scene = make_scene(35, 1, size=(240, 320), people=3, split="test")
    assert EdgeSystem(tmp_path, 1).enhance(scene.image).people == 0
    both = EdgeSystem(tmp_path, 1, finders=(second[1],))
    assert both.enhance(scene.image).people == 3
    blind.finders = [second[0]]
    assert both.enhance(scene.image).record["squares"] == blind.enhance(scene.image).record["squares"]


def test_a_finder_is_a_pose_file_with_the_same_joints(folder, second, tmp_path):
    with pytest.raises(EdgeError, match="enhancer.onnx: is the part enhancer; allowed is pose"):
        EdgeSystem(folder, 1, finders=(folder / "enhancer.onnx",))
    with pytest.raises(EdgeError, match="nobody.onnx: no such file"):
        EdgeSystem(folder, 1, finders=(tmp_path / "nobody.onnx",))
    other = PrivacySystem.load("single")
    other.pose = PoseEstimator.build(keypoints=16, width=0.1875).eval()
    export_part(other, "pose", tmp_path / "mpii.onnx", opset=17, side=96, count=1)
    with pytest.raises(EdgeError, match="mpii.onnx: 16 joints; allowed are those of pose.onnx, 17"):
        EdgeSystem(folder, 1, finders=(tmp_path / "mpii.onnx",))


def test_nobody_in_a_frame(edge):
    frame = np.full((90, 120, 3), 128, np.uint8)
    result = edge.enhance(frame)
    assert result.people == 0 and len(result.found) == 0 and np.array_equal(result.image, frame)


def test_recovery_from_the_cameras_frame_is_as_good(system, edge):
    figures = []
    for k in range(4):
        scene = make_scene(33, k, size=(224, 288), people=(1, 3), split="test")
        for made in (edge.enhance(scene.image), system.enhance(scene.image)):
            recovered = system.recover(made.image, made.record)
            squares = torch.tensor(made.record["squares"], dtype=torch.float32).reshape(-1, 4)
            mask = portrait_mask(squares, torch.zeros(len(squares), dtype=torch.int64), 1, 224, 288)
            figures.append(float(psnr(to_tensor(scene.image), to_tensor(recovered), mask)))
    gaps = np.diff(np.array(figures).reshape(-1, 2), axis=1)
    assert np.abs(gaps).max() < 0.1


@pytest.mark.parametrize("kind, radius", [("pixelate", 5.0), ("blur", 3.0), ("blur", 11.5)])
def test_a_continuous_system_at_other_strengths(tmp_path, kind, radius):
    told = PrivacySystem.load("continuous")
    export_part(told, "enhancer", tmp_path / "enhancer.onnx", opset=17, side=64, count=2)
    ours, scene = EdgeSystem(tmp_path, 1).at(kind, radius), make_scene(8, 1, size=160, people=(2, 2))
    result, wanted = ours.enhance(scene.image, scene.boxes), told.at(kind, radius).enhance(
        scene.image, scene.boxes)
    assert levels(result.image, wanted.image).max() <= 1
    assert result.record["guidance"] == [kind, radius]
    recovered = told.recover(result.image, result.record)
    assert recovered.shape == scene.image.shape
    low, high = told.config.ranges["blur"]
    with pytest.raises(ValueError, match=f"blur {low:g} to {high:g}"):
        ours.at("blur", high + 18)


def test_a_system_that_resamples_its_portraits(tmp_path):
    config = SystemConfig(generator="unet7", options={"ngf": 2}, guided=False, native=False,
                          portrait=128, pose={"width": 0.0625})
    torch.manual_seed(0)
    plain = PrivacySystem(config, recoverer=False).eval()
    export_part(plain, "enhancer", tmp_path / "enhancer.onnx", opset=17, side=128, count=2)
    frame, boxes = noise(200, 260), [(20, 10, 120, 190), (90, 30, 240, 180), (-5, 0, 30, 40)]
    ours, wanted = EdgeSystem(tmp_path, 1).enhance(frame, boxes), plain.enhance(frame, boxes)
    assert ours.record["squares"] == wanted.record["squares"]
    assert levels(ours.image, wanted.image).max() <= 1


# files of one size

def test_a_file_of_one_side_fills_whoever_is_larger(system, tmp_path):
    export_part(system, "enhancer", tmp_path / "enhancer.onnx", 17, False, side=128, count=2)
    export_part(system, "pose", tmp_path / "pose.onnx", 17, False, side=288, count=2)
    fixed = EdgeSystem(tmp_path, 1)
    assert fixed.side == 128 and fixed.shape == (288, 288)
    result = fixed.enhance(noise(220, 300), [(10, 10, 60, 100), (100, 10, 160, 80), (60, 5, 250, 215)])
    sides = {square[2] - square[0] for square in result.record["squares"]}
    assert sides == {128} and result.record["filled"] == [[60, 5, 250, 215]]
    assert (result.image[5:215, 60:250] == 128).all()
    recovered = system.recover(result.image, result.record)
    assert recovered.shape == result.image.shape
    scene = make_scene(31, 2, size=(240, 320), people=(2, 2), split="test")
    assert len(fixed.find(scene.image)) >= 1


# refusals

@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
                                   np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), None])
def test_other_frames_are_refused(edge, frame):
    with pytest.raises(ValueError, match="frame: .*allowed is an array"):
        edge.enhance(frame, [])


@pytest.mark.parametrize("boxes", [[(5, 5, 1, 9)], [(0, 0, math.nan, 4)], [(1, 2, 3)]])
def test_other_boxes_are_refused(edge, boxes):
    with pytest.raises(ValueError, match="boxes: .*allowed"):
        edge.enhance(np.zeros((9, 9, 3), np.uint8), boxes)


def test_a_spoilt_portrait_is_filled_not_shown(edge, monkeypatch):
    class Broken:
        def __init__(self, session): self.session = session
        def get_inputs(self): return self.session.get_inputs()
        def run(self, names, feed): return [np.full_like(feed["portrait"], np.nan)]

    frame = noise(100, 100)
    monkeypatch.setattr(edge, "enhancer", Broken(edge.enhancer))
    result = edge.enhance(frame, [(20, 20, 60, 80)])
    assert result.record["squares"] == [] and result.record["filled"] == [[20, 20, 60, 80]]
    assert (result.image[20:80, 20:60] == 128).all()


def test_files_that_are_not_ours(tmp_path, folder):
    with pytest.raises(EdgeError, match="enhancer.onnx: no such file"):
        EdgeSystem(tmp_path)
    (tmp_path / "enhancer.onnx").write_bytes(b"not a graph")
    with pytest.raises(EdgeError, match="cannot be run"):
        EdgeSystem(tmp_path)
    import onnx
    model = onnx.load(folder / "enhancer.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "enhancer.onnx")
    with pytest.raises(EdgeError, match="no file of privnb export"):
        EdgeSystem(tmp_path)


def test_files_of_two_systems_are_not_mixed(tmp_path, folder):
    told = PrivacySystem.load("continuous")
    export_part(told, "enhancer", tmp_path / "enhancer.onnx", opset=17, side=64, count=1)
    (tmp_path / "pose.onnx").write_bytes((folder / "pose.onnx").read_bytes())
    with pytest.raises(EdgeError, match="belongs to another system"):
        EdgeSystem(tmp_path)


def test_without_a_detector_boxes_are_needed(tmp_path, folder):
    (tmp_path / "enhancer.onnx").write_bytes((folder / "enhancer.onnx").read_bytes())
    blind = EdgeSystem(tmp_path, 1)
    assert blind.enhance(noise(60, 60), [(5, 5, 40, 50)]).people == 1
    with pytest.raises(EdgeError, match="boxes"):
        blind.enhance(noise(60, 60))


# no torch

@pytest.mark.parametrize("forbidden", [("torch", "torchvision", "ultralytics", "skimage", "onnx")])
def test_the_runner_needs_neither_torch_nor_the_training_side(folder, forbidden):
    code = """
import json, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
import numpy as np
from privnb.edge import EdgeSystem
frame = np.arange(96 * 128 * 3, dtype=np.uint64).reshape(96, 128, 3).astype(np.uint8)
edge = EdgeSystem(sys.argv[1], 1)
print(edge.enhance(frame).people, edge.enhance(frame, [(9, 9, 70, 80)]).people)
print(sorted(name for name in sys.modules if name.startswith("privnb.")))
assert sys.modules["torch"] is None
"""
    run = subprocess.run([sys.executable, "-c", code, str(folder), json.dumps(forbidden)], cwd=ROOT,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first.split()[1] == "1" and second == "['privnb.edge', 'privnb.frames', 'privnb.records', 'privnb.sight']"


def test_import_alone_does_not_load_torch():
    code = "import privnb.edge, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# the pieces

@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([None, 64, 96, 160, 233]))
@few
def test_letterbox_equals_torchs(height, width, size):
    frame = noise(height, width)
    ours, factors = letterbox(frame, size)
    wanted, known = _letterbox(to_tensor(frame), size, 32)
    assert ours.shape == tuple(wanted.shape) and np.allclose(factors, known)
    assert np.abs(ours - wanted.numpy()).max() < 1e-5


@given(st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 90), st.integers(1, 90),
       st.integers(1, 80), st.sampled_from([None, 16, 50]))
@few
def test_crops_equal_the_portrait_rooms(left, top, height, width, side, size):
    frame, square = noise(height, width), np.array([left, top, left + side, top + side])
    ours = frames.crop(frame, square, size)
    wanted = crop_portraits(to_tensor(frame), torch.tensor(square[None]).float(),
                            torch.zeros(1, dtype=torch.int64), size)[0]
    assert np.abs(ours - wanted.numpy()).max() < 1e-5


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives memory back")
def test_a_frame_finds_its_memory_again():
    code = """
import resource, sys
import numpy as np
from privnb import edge, frames
if sys.argv[1] == "keep":
    edge.keep_memory()
frame, square = np.zeros((480, 640, 3), np.uint8), np.array([100, 40, 516, 456])
rules = {"guidance": {"kind": "pixelate", "radius": 12, "mode": "mean"}, "portrait": 256, "native": True}
for turn in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    frames.guide(frames.crop(frame, square)[None], rules)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    lost, kept = (int(subprocess.run([sys.executable, "-c", code, word], cwd=ROOT, check=True,
                                     capture_output=True, text=True).stdout) for word in ("no", "keep"))
    if lost < 100:
        pytest.skip("this process keeps its memory by itself")
    assert kept < 100  # pages that the sixth frame asks for


@given(st.integers(8, 140), st.sampled_from(["pixelate", "blur"]), st.floats(0, 20),
       st.booleans(), st.sampled_from(["mean", "topleft"]), st.sampled_from(["sigma", "kernel"]))
@few
def test_guidances_equal_the_guidance_rooms(system, side, kind, radius, native, mode, reading):
    guidance = Guidance(kind, radius, mode=mode, reading=reading)
    config = SystemConfig(guidance=guidance, native=native, portrait=128)
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    view = system.at()
    view.config = config
    apart = np.abs(frames.guide(x.numpy(), config.to_dict()) - view.guide(x).numpy()) * 255
    assert apart.max() < 1.01 and (apart > 0.5).mean() < 2e-3
    matrix = frames.guidance_matrix(side, config.to_dict())
    assert np.allclose(matrix.sum(1), 1, atol=1e-5)
    assert np.abs(frames.rounded(matrix @ x.numpy() @ matrix.T) * 255
                  - view.guide(x).numpy() * 255).max() < 1.01


def test_suppression_and_decoding_of_nobody():
    nobody = decode(np.zeros((64, 21)), np.full((1, 21), -9.0), np.zeros((51, 21)), (32, 32))
    assert len(nobody) == 0 and nobody.keypoints.shape == (0, 17, 3)
    assert len(suppress(nobody)) == 0
    assert len(places(32, 64)[0]) == 32 + 8 + 2


def test_suppression_keeps_the_surest_of_many():
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 60, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (40, 2))], 1).astype(np.float32)
    scores = rng.permutation(40).astype(np.float32) / 40
    kept = suppress(Found(boxes, scores, np.zeros((40, 17, 3))), 0.4)
    assert (np.diff(kept.scores) <= 0).all() and kept.scores[0] == scores.max()
    area = (kept.boxes[:, 2:] - kept.boxes[:, :2]).prod(1)
    low = np.maximum(kept.boxes[:, None, :2], kept.boxes[None, :, :2])
    high = np.minimum(kept.boxes[:, None, 2:], kept.boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    overlap = shared / (area[:, None] + area - shared)
    assert (overlap[~np.eye(len(area), dtype=bool)] <= 0.4).all()


def test_a_whole_folder_from_one_call(system, tmp_path):
    rows = export_system(system, tmp_path, "enhancer", opset=17, dynamic=True, portraits=2, side=64)
    assert [row["part"] for row in rows] == ["enhancer", "guidance"]
    scene = render_scenes(3, 1, 160, (1, 1), "test")[0]
    assert EdgeSystem(tmp_path, 1).enhance(scene.image, scene.boxes).people == 1


# frames after frames

def walkers(count=6, people=2):
    return [scene.image for scene in make_clip(9, 2, frames=count, size=(160, 224),
                                               people=(people, people), split="test")]


@st.composite
def crowds(draw):
    corners = st.tuples(*[st.integers(0, 200)] * 2, *[st.integers(8, 90)] * 2)
    rows = draw(st.lists(corners, max_size=5))
    return np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32).reshape(-1, 4)


@given(crowds(), crowds(), st.integers(1, 6))
@few
def test_nobody_is_forgotten_between_two_searches(before, after, every):
    parts = stream.boxes_between(before, after, every, margin=0.0)
    assert len(parts) == every and np.array_equal(parts[-1], after)
    pairs = stream.match(before, after)
    alone = [b for k, b in enumerate(before) if k not in {r for r, _ in pairs}]
    alone += [b for k, b in enumerate(after) if k not in {c for _, c in pairs}]
    for t, boxes in enumerate(parts[:-1], 1):
        assert len(boxes) >= len(pairs)
        if alone:
            assert stream.inside(np.stack(alone), boxes).min() >= stream.COVERED - 1e-5
        for row, column in pairs:
            there = (1 - t / every) * before[row] + t / every * after[column]
            assert np.abs(boxes - there).max(1).min() < 1e-3


@given(crowds(), crowds())
@few
def test_pairs_are_one_to_one_and_overlap(before, after):
    pairs = stream.match(before, after)
    assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs)
    shares = stream.overlaps(before, after)
    assert all(shares[pair] >= 0.2 for pair in pairs) and (shares <= 1 + 1e-6).all()


@pytest.mark.parametrize("hold, searches", [(0, 0), (1, 1), (3, 3)])
def test_a_lost_person_stays_for_as_many_searches(hold, searches):
    crowd = stream.Crowd(np.array([[10, 10, 50, 90]], np.float32), np.zeros(1, int))
    nobody, kept = np.zeros((0, 4), np.float32), 0
    for _ in range(5):
        crowd = crowd.next(nobody, hold)
        kept += len(crowd.boxes)
    assert kept == searches


def test_who_comes_back_is_no_longer_missing():
    box = np.array([[10, 10, 50, 90]], np.float32)
    crowd = stream.Crowd(box, np.ones(1, int)).next(box + 2, hold=1)
    assert crowd.missed.tolist() == [0] and len(crowd.boxes) == 1


def test_a_square_that_is_not_painted_covers_nobody(edge):
    "A found child is too small for a square, and filled; the adult who was lost beside it stays covered."
    adult, child = [[60.0, 50, 130, 160]], [[100.0, 100, 104, 104]]
    told, view = iter([adult, child, child]), copy.copy(edge)
    view.find = lambda frame, confidence: Found(np.array(next(told), np.float32), np.ones(1), np.zeros((1, 17, 3)))
    view.side = 128  # as if the file had one fixed size
    frames = np.random.default_rng(0).integers(0, 256, (5, 200, 260, 3), np.uint8)
    results = list(stream.protect_stream(view, frames, every=2, hold=1))
    person = np.zeros((1, 200, 260), bool)
    person[0, 50:160, 60:130] = True
    assert [stream.uncovered(person, result.record)[0] for result in results[:3]] == [0, 0, 0]
    assert stream.painted(np.array(child, np.float32), (200, 260), view.rules, view.side).tolist() == child


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("every", [1, 3])
def test_a_stream_of_any_length_comes_out_in_order(edge, count, every):
    images = walkers(5)[:count]
    results = list(stream.protect_stream(edge, images, every=every, workers=3))
    assert len(results) == count
    for image, result in zip(images, results):
        outside = np.ones(image.shape[:2], bool)
        for x0, y0, x1, y1 in (*result.record["squares"], *result.record["filled"]):
            outside[max(y0, 0):max(y1, 0), max(x0, 0):max(x1, 0)] = False
        assert np.array_equal(result.image[outside], image[outside])
    assert [r.found is not None for r in results] == [k % every == 0 or k == count - 1
                                                      for k in range(count)]


def test_a_stream_that_looks_everywhere_equals_single_frames(edge):
    images = walkers(3)
    for image, result in zip(images, stream.protect_stream(edge, images, every=1, hold=0)):
        wanted = edge.enhance(image, edge.find(image, PROTECT).boxes)
        assert np.array_equal(result.image, wanted.image) and result.record == wanted.record


def test_a_camera_without_end_is_not_read_far_ahead(edge):
    read, image = [], walkers(1)[0]

    def camera():
        while True:
            read.append(1)
            yield image

    results = stream.protect_stream(edge, camera(), every=3)
    for given_out in range(1, 8):
        next(results)
        assert len(read) <= given_out + 9
    results.close()


def test_a_bad_frame_is_named_and_a_bad_setting_too(edge):
    with pytest.raises(ValueError, match="frame"):
        list(stream.protect_stream(edge, [np.zeros((8, 8), np.uint8)]))
    for change in ({"every": 0}, {"hold": -1}, {"workers": 0}):
        with pytest.raises(ValueError, match=next(iter(change))):
            next(stream.protect_stream(edge, walkers(1), **change))


@pytest.mark.parametrize("confidence", [0, 1, -1, float("nan")])
def test_a_least_score_outside_its_range_is_named(edge, confidence):
    with pytest.raises(ValueError, match="^confidence:"):
        edge.enhance(np.zeros((64, 64, 3), np.uint8), confidence=confidence)
