"The widgets without a browser: odd input, orders of events, errors in threads, and what lies in the notebooks."
import io
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from privnb import pictures as picture_room
from privnb.batches import Sample
from privnb.config import preset
from privnb.guidance_explorer import (LIMITS, GuidanceExplorer, Setting, explorer_picture, guidance_figures,
                                      guidance_strip, guided_view, people_mask, wiped)
from privnb.images import ImageError
from privnb.live_run import KNOBS, LiveRun, apply_changes, last_values, read_history, turned
from privnb.pictures import (SIDE, PicturePicker, bare, fitted, mean_oks, read_picture, read_upload,
                             samples, unaware)
from privnb.system import PrivacySystem
from privnb.tradeoff import (attacker_accuracy, Point, Strength, guidance_at, panels, plane_figure, points_csv, points_of,
                             tradeoff_stages, tradeoff_strip, tradeoff_view, untrained)
from privnb.tradeoff_explorer import TradeoffExplorer, free_path
from privnb.trainer import JointTrainer
from privnb.training_monitor import TrainingMonitor, curves_figure, people_picture, running_mean
from privnb.widgets import Latest, PictureBox, SliderRow, figure_png, jpeg, set_limits, skeletons

ROOT = Path(__file__).resolve().parent.parent
TWO = "two people (rendered)"


@pytest.fixture(scope="module")
def sample():
    return samples()[TWO]()


@pytest.fixture(scope="module")
def system():
    return PrivacySystem.load("continuous")


def upload(name, content):
    return ({"name": name, "type": "", "size": len(content), "content": memoryview(content),
             "last_modified": datetime.now()},)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def text_of(box):
    return re.search(r'alt="([^"]*)"', box.value)[1]


# the worker

def test_a_drag_over_a_slow_function_is_not_queued():
    begun, shown, release = [], [], threading.Event()

    def slow(value):
        begun.append(value)
        assert release.wait(20)
        return value

    worker = Latest(slow, shown.append)
    worker.submit(0)
    while not begun:
        time.sleep(0.001)
    for value in range(1, 100):
        worker.submit(value)
    release.set()
    assert worker.settle(20)
    assert begun == shown == [0, 99] and worker.submitted == 100


def test_later_stages_are_given_up_for_something_newer():
    shown, first, go_on = [], threading.Event(), threading.Event()

    def staged(value):
        yield value, "picture"
        if value == 0:
            first.set()
            assert go_on.wait(20)
        yield value, "figures"
        yield value, "plane"

    worker = Latest(staged, shown.append)
    worker.submit(0)
    assert first.wait(20)
    worker.submit(1)
    go_on.set()
    assert worker.settle(20)
    assert shown == [(0, "picture"), (0, "figures"), (1, "picture"), (1, "figures"), (1, "plane")]


def test_the_worker_survives_errors_of_both_sides():
    shown, errors = [], []

    def deliver(value):
        if value == 3:
            raise RuntimeError("no room")
        shown.append(value)

    worker = Latest(lambda value: 6 // value, deliver, errors.append)
    for value in (0, 1, 2, 3):
        worker.submit(value)
        assert worker.settle(20)
    assert shown == [6, 2] and worker.error is None
    assert [type(error).__name__ for error in errors] == ["ZeroDivisionError", "RuntimeError"]


def test_settle_reports_that_it_took_too_long():
    release = threading.Event()
    worker = Latest(lambda value: release.wait(20), lambda value: None)
    worker.submit(1)
    assert not worker.settle(0.05)
    release.set()
    assert worker.settle(20)


# pieces

@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(LIMITS) + [0.0, 3.3, 16.0, 100.0, -5.0]), max_size=12))
def test_a_row_keeps_both_parts_equal_and_within_its_range(actions):
    row = SliderRow("Radius", 4.0, *LIMITS["blur"])
    for action in actions:
        if action in LIMITS:
            set_limits(row, *LIMITS[action])
        else:
            row.value = action
        assert row.slider.value == row.number.value
        assert row.slider.min <= row.value <= row.slider.max
        assert (row.slider.min, row.slider.max) == (row.number.min, row.number.max)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(-50, 150))
def test_the_wipe_takes_each_column_from_one_side(height, width, share):
    left, right = np.zeros((height, width, 3), np.uint8), np.full((height, width, 3), 100, np.uint8)
    both = wiped(left, right, share)
    assert both.shape == left.shape and set(np.unique(both)) <= {0, 100, 255}
    assert (both == both[:1]).all()
    assert ((both == 255).any() and width > 1) == (0 < round(width * min(max(share, 0), 100) / 100) < width)


def test_skeletons_outside_the_picture_are_clipped():
    picture = np.zeros((40, 50, 3), np.uint8)
    joints = np.full((2, 17, 3), 1.0)
    joints[0, :, :2], joints[1, :, :2] = -300, 4000
    assert not skeletons(picture, joints).any()
    joints[..., :2], joints[..., 2] = 20, 0.1
    assert not skeletons(picture, joints).any()


def test_texts_are_escaped():
    box = PictureBox()
    box.show(np.zeros((4, 4, 3), np.uint8), '<script>"')
    assert "<script>" not in box.value and text_of(box) == "&lt;script&gt;&quot;"


# pictures

@pytest.mark.parametrize("content", [b"", b"text", png(np.zeros((64, 64, 3), np.uint8))[:60]],
                         ids=["empty", "text", "cut"])
def test_a_broken_upload_is_one_line_and_the_picture_stays(content):
    explorer = GuidanceExplorer(picture=TWO)
    assert explorer.worker.settle(60)
    last, options = explorer.picture.data, explorer.picker.names.options
    explorer.picker.upload.value = upload("holiday <b>.png", content)
    assert explorer.worker.settle(60) and explorer.picture.data == last
    told = explorer.picker.status.value
    assert "holiday &lt;b&gt;.png" in told and 'role="alert"' in told and "\n" not in told and "tmp" not in told
    assert explorer.picker.names.options == options and explorer.sample.name == TWO


def test_a_good_upload_replaces_error_and_picture_in_both_explorers(system):
    array = np.random.default_rng(0).integers(0, 255, (300, 700, 3), dtype=np.uint8)
    for explorer in (GuidanceExplorer(), TradeoffExplorer(system)):
        explorer.picker.upload.value = upload("bad.png", b"text")
        explorer.picker.upload.value = upload("mine.png", png(array))
        assert explorer.worker.settle(60) and explorer.worker.error is None
        assert explorer.picker.status.value == "" and explorer.picker.names.value == "mine.png"
        assert explorer.sample.image.shape == (219, 512, 3)


def test_a_second_upload_of_a_name_does_not_replace_the_first():
    seen, grey = [], [png(np.full((64, 64, 3), value, np.uint8)) for value in (10, 20, 30)]
    picker = PicturePicker(seen.append)
    for content in grey:
        picker.upload.value = upload("image.jpg", content)
    assert [one.name for one in seen] == ["image.jpg", "image (2).jpg", "image (3).jpg"]
    assert picker.names.value == "image (3).jpg"
    picker.names.value = "image.jpg"
    assert seen[-1].image.max() == 10


def test_names_of_uploads_never_become_paths(tmp_path):
    mine = read_upload("/etc/passwd", png(np.zeros((64, 64, 3), np.uint8)))
    assert mine.name == "/etc/passwd" and not mine.image.any()


def test_a_path_is_read_or_refused(tmp_path):
    Image.fromarray(np.full((64, 1000, 3), 9, np.uint8)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").image.shape == (33, SIDE, 3)
    with pytest.raises(ImageError, match="folder"):
        read_picture(tmp_path)
    Image.fromarray(np.full((64, 2000, 3), 9, np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(ImageError, match="2000 x 64 pixels; allowed are"):
        read_picture(tmp_path / "b.png")


def test_a_missing_photograph_is_told_and_the_list_goes_on(monkeypatch):
    def gone():
        raise ImageError("bus.jpg: no such file")

    monkeypatch.setattr(picture_room, "samples", lambda: {"gone": gone, TWO: samples()[TWO]})
    taken = []
    picker = PicturePicker(taken.append)
    picker.take("gone")
    assert "no such file" in picker.status.value and taken == []
    picker.names.value = TWO
    assert picker.status.value == "" and taken[0].name == TWO


@settings(max_examples=25, deadline=None)
@given(st.integers(32, 900), st.integers(32, 900), st.integers(64, 600))
def test_shrinking_keeps_labels_on_their_pixels(height, width, side):
    boxes = np.array([[0, 0, width, height]], np.float32)
    points = np.full((1, 17, 3), 2.0, np.float32)
    points[..., 0], points[..., 1] = width, height
    whole = Sample(np.zeros((height, width, 3), np.uint8), points, boxes,
                   np.array([float(width * height)]), np.zeros(1, np.int64))
    try:
        small = fitted(whole, side)
    except ImageError:
        return
    h, w = small.image.shape[:2]
    assert max(h, w) <= side or (h, w) == (height, width)
    assert np.allclose(small.boxes, [[0, 0, w, h]], rtol=1e-5)
    assert np.allclose(small.keypoints[0, :, :2], [w, h], rtol=1e-5)
    assert np.isclose(small.areas[0], w * h)


def test_oks_counts_the_missing_and_ignores_the_unlabelled(sample):
    from privnb.pose import Prediction
    keys = torch.tensor(sample.keypoints)
    found = Prediction(torch.tensor(sample.boxes[:1]), torch.ones(1), keys[:1])
    assert mean_oks(found, sample) == pytest.approx(0.5)
    nobody = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 17, 3))
    assert mean_oks(nobody, sample) == 0.0
    hidden = replace(sample, keypoints=np.where([[[False]], [[True]]], 0, sample.keypoints).astype(np.float32))
    assert mean_oks(found, hidden) == pytest.approx(1.0)


# the guidance explorer

@pytest.mark.parametrize("kind", ["blur", "pixelate", "noise"])
@pytest.mark.parametrize("place", ["whole picture", "people only"])
def test_what_is_shown_is_what_the_functions_give(sample, kind, place):
    explorer = GuidanceExplorer(picture=TWO)
    explorer.kind.value, explorer.place.value = kind, place
    explorer.radius.value, explorer.noise.value, explorer.wipe.value = 7.0, 0.3, 20.0
    assert explorer.worker.settle(60) and explorer.worker.error is None
    assert explorer.setting == Setting(kind, 7.0, 0.3, place, 20.0)
    view = guided_view(sample, explorer.setting)
    figures, joints = guidance_figures(view, sample, unaware())
    assert explorer.picture.data == jpeg(explorer_picture(view, explorer.setting, joints))
    assert explorer.figures == figures and f"PSNR {figures['psnr']:.1f}" in text_of(explorer.picture)


def test_whoever_is_unknown_is_protected_with_the_whole_picture(sample):
    assert people_mask(bare(sample.image, "")).all() and not people_mask(sample).all()


def test_an_upload_is_compared_with_the_estimate_on_it(sample):
    explorer = GuidanceExplorer(picture=TWO)
    explorer.radius.value = 0.0
    explorer.picker.upload.value = upload("same.png", png(sample.image))
    assert explorer.worker.settle(60)
    assert explorer.figures["oks"] > 0.9 and explorer.figures["people"] == explorer.figures["found"]
    assert "PSNR equal" in explorer.text.value


def test_poses_can_be_left_out(sample):
    explorer = GuidanceExplorer(picture=TWO)
    explorer.poses.value = False
    assert explorer.worker.settle(60)
    assert explorer.picture.data == jpeg(explorer_picture(guided_view(sample, explorer.setting), explorer.setting))


def test_a_failing_estimator_is_told_and_the_picture_stays():
    explorer = GuidanceExplorer(picture=TWO)
    assert explorer.worker.settle(60)

    class Broken:
        def estimate(self, *args, **options):
            raise RuntimeError("weights are gone")

    explorer.system, last = Broken(), explorer.picture.data
    explorer.radius.value = 11
    assert explorer.worker.settle(60) and "weights are gone" in explorer.text.value
    assert explorer.picture.data != last and "measuring" in text_of(explorer.picture)


def test_every_control_has_a_name(system, tmp_path):
    import ipywidgets

    roots = (GuidanceExplorer(), TradeoffExplorer(system),
             TrainingMonitor(preset("smoke", conventional=False), tmp_path))

    def inside(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from inside(child)

    inputs = (ipywidgets.Dropdown, ipywidgets.Select, ipywidgets.Text, ipywidgets.BoundedFloatText,
              ipywidgets.Button, ipywidgets.Checkbox, ipywidgets.FileUpload)
    for root in roots:
        parts = list(inside(root))
        assert all(part.description for part in parts if isinstance(part, inputs))
        rows = [part for part in parts if isinstance(part, SliderRow)]
        sliders = [part for part in parts if isinstance(part, ipywidgets.FloatSlider)]
        assert rows and sliders == [row.slider for row in rows]
        assert all(row.number.description and row.number.tooltip for row in rows)


# the trade-off

@pytest.mark.parametrize("kind,radius", [("blur", 0.0), ("blur", 1.0), ("blur", 16.5), ("pixelate", 1.0),
                                         ("pixelate", 3.0), ("pixelate", 33.0), ("noise", 8.0)])
def test_beyond_the_training_there_is_the_guidance_only(sample, system, kind, radius):
    stages = list(tradeoff_stages(sample, system, Strength(kind, radius), system))
    assert all("enhanced" not in stage["views"] and stage["note"] for stage in stages)
    assert [p.method for p in points_of(stages[-1])] == ["guidance"]
    assert (panels(stages[-1])["enhanced"] == 224).all()


def test_borders_of_the_training_are_inside(sample, system):
    for kind, limits in system.config.ranges.items():
        assert [untrained(system, Strength(kind, r)) for r in limits] == ["", ""]
        assert untrained(system, Strength(kind, limits[1] + 1e-6))


def test_stages_agree_with_the_system(sample, system):
    first, last = tradeoff_stages(sample, system, Strength("blur", 6), system)
    enhanced = system.at("blur", 6).enhance(sample.image, sample.boxes)
    recovered = system.at("blur", 6).recover(enhanced.image, enhanced.record)
    assert np.array_equal(first["views"]["enhanced"], enhanced.image) and "recovered" not in first["views"]
    assert np.array_equal(last["views"]["recovered"], recovered)
    assert np.array_equal(last["views"]["guidance"], guidance_at(sample, system, Strength("blur", 6)))
    assert list(last["figures"]) == ["guidance", "enhanced", "recovered"]
    figures = last["figures"]["guidance"]
    mask = torch.from_numpy((last["views"]["guidance"] != sample.image).any(-1))
    assert mask.any() and 0 < figures["privacy"] < 1


def test_two_pictures_at_one_strength_keep_their_own_originals(sample, system):
    other = replace(sample, image=255 - sample.image, name="other")
    views = [{name: one.image for name in ("original", "guidance")} for one in (sample, other)]
    figure = tradeoff_strip([{"strength": Strength(), "sample": one, "views": view, "found": {}}
                             for one, view in zip((sample, other), views)])
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(shown) == 8
    assert np.array_equal(shown[0], sample.image) and np.array_equal(shown[4], other.image)


def test_a_setting_twice_is_two_pictures(sample):
    figure = guidance_strip(sample, (Setting(), Setting()), unaware())
    assert [bool(ax.images) for ax in figure.axes][:2] == [True, True]


def test_a_camera_without_recoverer_still_enhances(sample):
    camera = PrivacySystem.load("continuous", recoverer=False)
    result = tradeoff_view(sample, camera, Strength("pixelate", 8))
    assert set(result["views"]) == {"original", "guidance", "enhanced"} and len(points_of(result)) == 2


def test_points_of_a_setting_replace_each_other(system):
    explorer = TradeoffExplorer(system, picture=TWO)
    for radius in (8, 10, 8, 10):
        explorer.radius.value = radius
        assert explorer.worker.settle(60) and explorer.worker.error is None
    assert len(explorer.points) == 4
    explorer.judge.value = "unaware"
    assert explorer.worker.settle(60) and len(explorer.points) == 6
    explorer.clear.click()
    assert explorer.points == {} and "0 points" in text_of(explorer.plane)


def test_every_point_brings_its_picture_back(system):
    explorer = TradeoffExplorer(system, picture=TWO)
    pictures = {}

    def keep():
        assert explorer.worker.settle(60) and explorer.worker.error is None
        for point in explorer.points.values():
            pictures.setdefault(point.key[:1] + point.key[2:], explorer.boxes["guidance"].data)

    keep()
    explorer.picker.names.value = "one person (rendered)"
    keep()
    explorer.kind.value, explorer.radius.value = "blur", 14.0
    keep()
    explorer.judge.value = "unaware"
    keep()
    explorer.kind.value = "noise"
    keep()
    assert len(set(pictures.values())) >= 4
    for _, point in explorer.list.options[:0:-1]:
        explorer.list.value = point
        assert explorer.worker.settle(60) and explorer.list.value == point
        assert explorer.boxes["guidance"].data == pictures[point.key[:1] + point.key[2:]]
        assert (explorer.picker.names.value, explorer.judge.value) == (point.picture, point.judge)


def test_moving_the_slider_leaves_the_chosen_point_and_it_can_be_chosen_again(system):
    explorer = TradeoffExplorer(system, picture=TWO)
    assert explorer.worker.settle(60)
    point = explorer.list.options[1][1]
    explorer.list.value = point
    explorer.radius.value = 13
    assert explorer.worker.settle(60) and explorer.list.value is None
    explorer.list.value = point
    assert explorer.worker.settle(60) and explorer.radius.value == point.radius


def test_exports_keep_what_is_there_and_report_errors(system, tmp_path):
    explorer = TradeoffExplorer(system, picture=TWO, folder=tmp_path)
    assert explorer.worker.settle(60)
    for _ in range(3):
        explorer.to_png.click()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tradeoff-2.png", "tradeoff-3.png", "tradeoff.png"]
    assert Image.open(tmp_path / "tradeoff.png").size[0] > 300
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", "x" * 300, "~nobody_of_this_name/a", "a\0b"):
        explorer.told.value, explorer.folder.value = "", str(folder)
        explorer.to_csv.click()
        assert 'role="alert"' in explorer.told.value, folder
    assert free_path(tmp_path, "new.csv") == tmp_path / "new.csv"


def test_a_plane_of_nothing_and_of_nan_is_drawn():
    point = Point("a", "guidance", "blur", 1.0, 0.5, "system", 0.1, float("inf"), float("nan"), float("nan"))
    for x in ("1 - SSIM", "PSNR", "attacker"):
        for y in ("OKS", "AP"):
            assert figure_png(plane_figure([], x, y)) != figure_png(plane_figure([replace(point, psnr=20, oks=.5, ap=5, attacker=40)], x, y))
            assert figure_png(plane_figure([point], x, y, point))
    assert points_csv([]).startswith("picture,method,kind,radius")


def test_the_attackers_share_is_what_was_measured_and_nothing_beyond():
    import json
    from importlib import resources
    rows = json.loads((resources.files("privnb") / "assets" / "attackers.json").read_text())["rows"]
    assert {(row["method"], row["kind"]) for row in rows} == {
        (m, k) for m in ("guidance", "learned") for k in ("pixelate", "blur")}
    for row in rows:
        assert row["mean"] == pytest.approx(np.mean(row["identity"]), abs=0.01) and len(row["identity"]) == 3
        assert attacker_accuracy(row["method"], row["kind"], row["radius"]) == pytest.approx(row["mean"])
    for asked in (("guidance", "noise", 4), ("learned", "pixelate", 3.9), ("learned", "pixelate", 33),
                  ("nobody", "blur", 4)):
        assert np.isnan(attacker_accuracy(*asked))


# live runs and their monitor

def smoke(**changes):
    return preset("smoke", "pixelate", 12, **{"pretrained": "", "conventional": False, "test_scenes": 2, **changes})


@pytest.mark.parametrize("values", [{"lr": 1.0}, {"threshold": -0.1}, {"lambda_pose": float("nan")},
                                    {"radius": float("inf")}])
def test_only_knobs_can_be_turned_and_within_reason(tmp_path, values):
    run = LiveRun(smoke(), tmp_path)
    with pytest.raises(ValueError, match="allowed are threshold"):
        run.change(**values)


def test_no_radius_where_it_is_drawn_or_does_not_exist(tmp_path):
    for config in (preset("continuous"), preset("smoke", "noise")):
        with pytest.raises(ValueError, match="one strength only"):
            turned(config, "radius", 5)
        monitor = TrainingMonitor(config, tmp_path / config.system.guidance.kind)
        assert monitor.rows["radius"].slider.disabled and not monitor.rows["threshold"].slider.disabled


def test_each_knob_changes_what_is_trained(tmp_path):
    base = smoke(steps=1)
    values = {"threshold": 0.0, "lambda_style": 400.0, "lambda_recovery": 3.0, "lambda_pose": 4.0, "radius": 5.0}
    assert set(values) == set(KNOBS)
    ends = {}
    for name, value in {"": 0, **values}.items():
        trainer = JointTrainer(base, tmp_path / f"run{name}", progress=False)
        done = apply_changes(trainer, {name: value} if name else {})
        assert set(done) == ({name} if name else set())
        ends[name] = list(trainer.run(1))[0] | {"weight": trainer.system.recoverer.state_dict()}
    for name in values:
        assert ends[name]["total"] != ends[""]["total"], name


def test_equal_values_are_no_change(tmp_path):
    trainer = JointTrainer(smoke(), tmp_path, progress=False)
    config = trainer.config
    assert apply_changes(trainer, {"threshold": config.threshold, "radius": 12}) == {} and trainer.config is config


def test_a_steered_run_resumes_with_its_last_values(tmp_path):
    config = smoke(steps=5)
    first = LiveRun(config, tmp_path, look_every=0)
    first.change(threshold=0.07, radius=6)
    first.start()
    assert first.wait(lambda run: len(run.history) >= 2)
    first.stop()
    assert first.wait(lambda run: run.state in ("stopped", "finished"))
    second = LiveRun(config, tmp_path, look_every=0)
    assert len(second.history) == first.step
    second.start()
    assert second.wait(lambda run: run.state == "finished") and second.error == ""
    assert second.trainer.config.threshold == 0.07 and second.trainer.system.config.guidance.radius == 6
    lines = read_history(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[0]["changed"] == {"threshold": [0.02, 0.07], "radius": [12.0, 6.0]}
    assert last_values(lines) == {"threshold": 0.07, "radius": 6.0}


def test_a_resumed_run_shows_the_values_that_are_in_force(tmp_path):
    changed = {"threshold": [0.02, 0.07], "radius": [12.0, 6.0]}
    (tmp_path / "history.jsonl").write_text(json.dumps({"step": 1, "style": 1.0, "recovery": 1.0, "pose": 1.0,
                                                        "changed": changed}) + "\n")
    monitor = TrainingMonitor(smoke(), tmp_path, look_every=0)
    assert (monitor.rows["threshold"].value, monitor.rows["radius"].value) == (0.07, 6)
    assert monitor.rows["lambda_pose"].value == smoke().lambda_pose == monitor.run.value("lambda_pose")
    monitor.run.change(radius=7)
    assert (monitor.run.value("threshold"), monitor.run.value("radius")) == (0.07, 7)


def test_pauses_and_glances_leave_no_trace_in_the_weights(tmp_path):
    config = smoke(steps=4)
    plain = JointTrainer(config, tmp_path / "plain", progress=False)
    plain.train()
    run = LiveRun(config, tmp_path / "live", look_every=1, look_at=1)
    run.start()
    for step in (1, 2, 3):
        run.wait(lambda run: len(run.history) >= step)
        run.pause()
        run.wait(lambda run: run.state == "paused")
        run.start()
    assert run.wait(lambda run: run.state == "finished")
    for a, b in zip(plain.system.state_dict().values(), run.trainer.system.state_dict().values()):
        assert torch.equal(a, b)
    assert [g.step for g in run.glances[::2]] == [0, 1, 2, 3, 4]


def test_wishes_outside_their_time_are_harmless(tmp_path):
    run = LiveRun(smoke(steps=2), tmp_path, look_every=0)
    run.pause(), run.stop()
    assert run.state == "new" and run.steps == run.step == 0
    run.start(), run.start()
    assert run.wait(lambda run: run.state == "finished")
    run.pause(), run.stop()
    assert run.state == "finished" and len(run.history) == 2


def test_an_error_in_a_step_is_told_and_the_run_can_go_on(tmp_path, monkeypatch):
    monitor = TrainingMonitor(smoke(steps=3, every=1), tmp_path, look_every=0)
    step = JointTrainer._joint_step

    def broken(self, *parts):
        if self.step == 1:
            raise RuntimeError("out of <memory>")
        return step(self, *parts)

    monkeypatch.setattr(JointTrainer, "_joint_step", broken)
    monitor.start.click()
    monitor.run.wait(lambda run: run.state == "failed")
    assert monitor.painter.settle(60)
    assert "out of &lt;memory&gt;" in monitor.text.value and 'role="alert"' in monitor.text.value
    assert not monitor.start.disabled
    monkeypatch.setattr(JointTrainer, "_joint_step", step)
    monitor.start.click()
    assert monitor.run.wait(lambda run: run.state == "finished") and monitor.painter.settle(60)
    assert [line["step"] for line in read_history(tmp_path)] == [1, 2, 3]
    assert "losses of 3 steps" in text_of(monitor.curves)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(1, 50))
def test_the_running_mean_is_a_mean(values, window):
    means = running_mean(values, window)
    wanted = [np.mean(values[max(0, k - window + 1):k + 1]) for k in range(len(values))]
    assert np.allclose(means, wanted, atol=1e-6)


def test_curves_of_nothing_and_marks_of_changes():
    bare_line = {"step": 1, "style": 0.0, "recovery": 0.1, "pose": 1.0}
    assert figure_png(curves_figure([]))
    marked = [bare_line, {**bare_line, "step": 2, "changed": {"threshold": [0.02, 0.1]}}]
    texts = [t.get_text() for ax in curves_figure(marked).axes for t in ax.texts]
    assert texts == ["threshold 0.1"] * 3
    assert people_picture([{"a": np.zeros((4, 6, 3), np.uint8)}]).shape == (8, 10, 3)


# imports and notebooks

def test_the_widgets_do_not_slow_the_package():
    code = "import privnb, sys; assert not {'ipywidgets', 'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def notebooks():
    return sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def test_no_notebook_stores_a_widget():
    for path in notebooks():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert "widgets" not in notebook["metadata"], path.name
        kinds = {kind for cell in notebook["cells"] for output in cell.get("outputs", ())
                 for kind in output.get("data", {})}
        assert not [kind for kind in kinds if "widget" in kind], path.name


def test_every_room_is_on_the_map_in_reading_order():
    cells = json.loads((ROOT / "nbs" / "start.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    listed = re.findall(r"^\| \[[^]]+\]\(([^)]+\.ipynb)\) \| \S.*\|$", text, re.M)
    rooms = [p.name for p in notebooks() if p.parent.name == "nbs" and re.match(r"\d\d[a-z]?_", p.name)]
    assert [name for name in listed if "/" not in name] == rooms
    others = [p for p in notebooks() if p.parent.parent.name == "nbs" and p.parent.name in ("labs", "papers")]
    assert {name for name in listed if "/" in name} == {f"{p.parent.name}/{p.name}" for p in others}

