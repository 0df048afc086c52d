"Files against torch, what they say about themselves, eight bits and their judge."
import copy
import json
import math
import re
from argparse import Namespace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import privnb.export as export
import privnb.portable as portable
from privnb.export import (LIMITS, NotOffered, calibration, cost, dense_convolutions, export_int8,
                           export_system, refuse_cost, run_export, to_int8, with_file)
from privnb.figures import render_scenes
from privnb.generators import EdgeGenerator, build_generator
from privnb.images import ImageError
from privnb.folding import Deployed, untransposed
from privnb.portable import (PARTS, TOLERANCES, ExportError, compare, export_part,
                             part_inputs, part_module, run_session, sample_portraits, session_for,
                             to_half, to_onnx)
from privnb.system import PrivacySystem, SystemConfig

few = settings(max_examples=15, deadline=None, derandomize=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def systems():
    return {name: PrivacySystem.load(name) for name in ("single", "continuous")}


@pytest.fixture(scope="module")
def sessions(systems):
    "Files of free sizes in memory, with the modules they come from."
    made = {}
    for name, system in systems.items():
        for part in PARTS:
            module, inputs, outputs = part_module(system, part, 64)
            opset = 18 if (name, part) == ("single", "enhancer") else 17
            model = to_onnx(module, inputs, outputs, opset)
            made[name, part] = module, model, session_for(model)
    return made


def portraits(count, side, seed=0):
    x = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return (x * 255).round() / 255


# float32

@pytest.mark.parametrize("name", ["single", "continuous"])
@pytest.mark.parametrize("part", PARTS)
def test_fifty_portraits_of_held_out_people(systems, sessions, name, part):
    module, _, session = sessions[name, part]
    seen = part_inputs(systems[name], part, sample_portraits(systems[name], 50, 96))
    figures = compare(module, session, seen)
    assert figures["max"] < 1e-4 and figures["psnr"] > 100


@given(st.sampled_from(["single", "continuous"]), st.sampled_from(PARTS), st.integers(1, 8),
       st.integers(1, 6), st.integers(0, 99))
@few
def test_any_batch_and_side(systems, sessions, name, part, count, cells, seed):
    module, _, session = sessions[name, part]
    seen = part_inputs(systems[name], part, portraits(count, 32 * cells, seed))
    assert compare(module, session, seen)["max"] < 1e-4 + (part == "guidance") / 254


@pytest.mark.parametrize("kind, radius", [("pixelate", 4.0), ("blur", 2.0), ("blur", 12.0)])
def test_one_file_serves_every_strength(systems, sessions, kind, radius):
    told = systems["continuous"].at(kind, radius)
    x = portraits(2, 96)
    with torch.no_grad():
        y, wanted = told.enhance_portraits(x)
        back = told.recoverer(wanted, base=wanted, **told.code(96))
    seen = part_inputs(told, "enhancer", x)
    (made,) = run_session(sessions["continuous", "enhancer"][2], seen)
    assert np.abs(made.clip(0, 1) - wanted.numpy()).max() * 255 < 0.501
    seen = part_inputs(told, "recoverer", x)
    (made,) = run_session(sessions["continuous", "recoverer"][2], seen)
    assert np.abs(made - back.numpy()).max() < 1e-4
    (made,) = run_session(sessions["continuous", "guidance"][2], part_inputs(told, "guidance", x))
    assert np.abs(made - y.numpy()).max() * 255 < 1.01


@given(st.sampled_from([2, 4, 6]), st.integers(4, 12), st.integers(1, 3), st.booleans(),
       st.sampled_from([0.0, 0.05, 0.15, 0.5]), st.integers(0, 99))
@few
def test_folding_changes_nothing(unshuffle, width, blocks, convolutions, carrier, seed):
    torch.manual_seed(seed)
    options = dict(width=3 * (width // 3 + 1), blocks=blocks, unshuffle=unshuffle, carrier=carrier)
    x, y = torch.rand(2, 2, 3, 4 * unshuffle, 6 * unshuffle)
    with torch.no_grad():
        for channels in (3, 6):
            net = EdgeGenerator(channels, **options)
            for parameter in net.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            inputs = (x, y) if channels == 6 else (x,)
            wanted = net(torch.cat(inputs, 1), base=inputs[-1])
            made = Deployed(net, convolutions=convolutions)(*inputs)
            assert (made - wanted).abs().max() < 1e-4 * max(1, wanted.abs().max())


def test_a_generator_of_the_paper_is_exported_as_it_is(tmp_path):
    small = {"unet7": {"ngf": 2}, "resnet6": {"ngf": 2}}
    for generator, options in small.items():
        torch.manual_seed(0)
        config = SystemConfig(generator=generator, options=options, guided=False, native=False,
                              portrait=128, pose={"width": 0.0625})
        row = export_part(PrivacySystem(config).eval(), "enhancer", tmp_path / f"{generator}.onnx",
                          17, False, side=128, count=2)
        assert list(row["inputs"]) == ["portrait"] and row["inputs"]["portrait"]["shape"][-1] == 128


# half precision

@pytest.mark.parametrize("part", ["enhancer", "recoverer", "pose"])
def test_half_precision_is_close_and_half_the_size(systems, sessions, part):
    module, model, _ = sessions["single", part]
    _, inputs, outputs = part_module(systems["single"], part, 64)
    halved = to_onnx(to_half(module), inputs, outputs, 17)
    assert len(halved.SerializeToString()) < 0.6 * len(model.SerializeToString())
    seen = part_inputs(systems["single"], part, sample_portraits(systems["single"], 6, 96))
    figures = compare(module, session_for(halved), seen)
    assert 1e-7 < figures["max"] < TOLERANCES["half"]
    if part == "enhancer":
        assert figures["max"] < 1e-3  # a quarter of a level: the carrier survives
    kinds = {value.type.tensor_type.elem_type for value in (*halved.graph.input, *halved.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


# the file

@pytest.mark.parametrize("opset", [16, 17, 18, 19, 20])
def test_the_operator_set_is_the_one_that_was_asked_for(systems, opset):
    module, inputs, outputs = part_module(systems["single"], "enhancer", 32)
    model = to_onnx(module, inputs, outputs, opset, dynamic=opset % 2 == 0)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]


def test_another_operator_set_is_refused(systems, monkeypatch):
    module, inputs, outputs = part_module(systems["single"], "guidance", 32)
    traced = portable._traced
    monkeypatch.setattr(portable, "_traced", lambda m, i, o, opset, d: traced(m, i, o, 18, d))
    with pytest.raises(ExportError, match=r"asked for 19, the exporter wrote \[18\]"):
        to_onnx(module, inputs, outputs, 19)


def test_no_trace_of_this_machine_is_in_a_file(sessions):
    for _, model, _ in sessions.values():
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        for weights in bare.graph.initializer:  # millions of bytes hold any three of them by chance
            weights.raw_data = b""
        data = bare.SerializeToString()
        assert b".py" not in data and b"site-packages" not in data and b"/nbs/" not in data


def test_metadata_says_what_the_file_needs(systems, tmp_path):
    row = export_part(systems["continuous"], "enhancer", tmp_path / "e.onnx", 17, side=64, count=2)
    model = onnx.load(row["file"])
    (entry,) = model.metadata_props
    said = json.loads(entry.value)
    assert entry.key == "privnb" and said["system"] == systems["continuous"].fingerprint()
    assert said["rules"] == json.loads(json.dumps(systems["continuous"].config.to_dict()))
    assert [v.name for v in model.graph.input] == list(said["inputs"]) == ["portrait", "guided", "code"]
    assert said["inputs"]["portrait"]["shape"] == ["N", 3, "H", "W"]
    assert said["inputs"]["code"]["shape"] == [4] and said["opset"] == 17
    assert said["figures"]["max"] < 1e-4 and row["bytes"] == (tmp_path / "e.onnx").stat().st_size


def test_a_file_of_one_size_says_so(systems, tmp_path):
    for part in PARTS:
        row = export_part(systems["single"], part, tmp_path / f"{part}.onnx", 17, False, side=64,
                          count=2)
        first = next(iter(row["inputs"].values()))
        assert first["shape"] == [1, 3, 64, 64] and "matrix" not in row["inputs"]


def test_an_existing_file_is_kept(systems, tmp_path):
    path = tmp_path / "g.onnx"
    path.write_text("mine")
    with pytest.raises(ImageError, match="g.onnx"):
        export_part(systems["single"], "guidance", path, 17, side=32, count=1)
    assert path.read_text() == "mine"
    export_part(systems["single"], "guidance", path, 17, side=32, count=1, overwrite=True)
    assert path.read_bytes() != b"mine"


# refusals

def test_a_file_that_differs_is_not_written(systems, tmp_path, monkeypatch):
    real = portable.to_onnx

    def spoilt(*arguments):
        model = real(*arguments)
        weights = next(t for t in model.graph.initializer if len(t.dims) == 4)
        values = onnx.numpy_helper.to_array(weights) + 0.01
        weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
        return model

    monkeypatch.setattr(portable, "to_onnx", spoilt)
    with pytest.raises(ExportError, match="enhancer: .* from torch; allowed in float is 0.0001"):
        export_part(systems["single"], "enhancer", tmp_path / "e.onnx", 17, side=32, count=2)
    assert not (tmp_path / "e.onnx").exists()


def test_what_is_not_a_number_is_refused():
    with pytest.raises(ExportError):
        portable.refuse_distance("pose", "float", math.nan)


@pytest.mark.parametrize("part, side, error", [
    ("nose", 64, "part: 'nose'; allowed"), ("enhancer", 50, "side: 50"), ("pose", 0, "side: 0")])
def test_unknown_parts_and_sides_are_refused(systems, tmp_path, part, side, error):
    with pytest.raises(ExportError, match=error):
        export_part(systems["single"], part, tmp_path / "x.onnx", 17, side=side, count=1)


def test_a_camera_has_no_recoverer_to_export(tmp_path):
    camera = PrivacySystem.load("single", recoverer=False)
    with pytest.raises(ExportError, match="recoverer"):
        export_part(camera, "recoverer", tmp_path / "r.onnx", 17, side=32, count=1)
    rows = export_system(camera, tmp_path, opset=17, side=32, portraits=1)
    assert [row["part"] for row in rows] == ["enhancer", "guidance", "pose"]


def test_a_head_that_decodes_otherwise_is_refused(systems):
    view = copy.deepcopy(systems["single"].pose)
    view.network.model[-1].kpt_shape = [17, 2]
    with pytest.raises(ExportError, match="head"):
        portable._Pose(view)


def test_noise_has_no_guidance_file(tmp_path):
    from privnb.guidance import Guidance
    config = SystemConfig(guidance=Guidance("noise"), options={"width": 6}, pose={"width": 0.0625})
    noisy = PrivacySystem(config).eval()
    with pytest.raises(ValueError, match="noise"):
        export_system(noisy, tmp_path, "guidance", opset=17, side=32, portraits=1)
    rows = export_system(noisy, tmp_path, "enhancer", opset=17, side=32, portraits=1)
    assert [row["part"] for row in rows] == ["enhancer"]


# eight bits

@pytest.fixture(scope="module")
def eight(systems, sessions):
    system = systems["single"]
    return to_int8(sessions["single", "enhancer"][1], calibration(system, "enhancer", 12))


def test_the_carrier_stays_in_float(eight):
    quantised = {name for node in eight.graph.node if node.op_type == "DequantizeLinear"
                 for name in node.output}
    for node in (n for n in eight.graph.node if n.op_type == "Conv"):
        grouped = any(a.name == "group" and a.i > 1 for a in node.attribute)
        assert grouped != (node.input[1] in quantised), node.name
    assert any(n.op_type == "QuantizeLinear" for n in eight.graph.node)


def test_eight_bits_of_the_enhancer_stay_within_the_limits(systems, eight):
    spent = cost(systems["single"], "enhancer", session_for(eight),
                 render_scenes(7, 12, 160, (1, 3), "test"))
    assert spent["psnr_or"] < LIMITS["psnr_or"] and set(spent) == set(LIMITS)
    refuse_cost("enhancer", {**spent, "ap50_p": min(spent["ap50_p"], 1.0)})


def test_symmetric_features_have_no_zero_point(systems, sessions):
    model = to_int8(sessions["single", "enhancer"][1],
                    calibration(systems["single"], "enhancer", 3), symmetric=True)
    zeros = {n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert zeros and all(values[name].dtype == np.int8 and not values[name].any() for name in zeros)


@pytest.mark.parametrize("spent", [{"psnr_or": 0.51, "ap50_p": 0.0}, {"psnr_or": 0.0, "ap50_p": 1.2},
                                   {"psnr_or": math.nan, "ap50_p": 0.0}])
def test_above_the_limits_eight_bits_are_not_offered(spent):
    with pytest.raises(NotOffered, match=f"{spent['psnr_or']:.2f} dB.*{spent['ap50_p']:.2f} points"):
        refuse_cost("pose", spent)


def test_a_refused_part_is_told_and_the_others_are_written(systems, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "cost", lambda system, part, *rest: {
        "psnr_or": 3.0 * (part == "recoverer"), "ap50_p": 0.0})
    monkeypatch.setattr(export, "calibration", lambda system, part: calibration(system, part, 3))
    args = Namespace(part="all", opset=17, dynamic=True, half=False, int8=True, out=tmp_path,
                     overwrite=False, side=64, portraits=1, scenes=1)
    assert run_export(args, systems["single"]) == 1
    seen = capsys.readouterr()
    assert "recoverer: 8 bits cost 3.00 dB" in seen.err and "recoverer.onnx" not in seen.out
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["enhancer.onnx", "guidance.onnx", "pose.onnx"]
    assert all(re.search(rf"{name}: \d+ kB, opset 17", seen.out) for name in written)
    with pytest.raises(NotOffered):
        export_int8(systems["single"], "recoverer", tmp_path / "r.onnx", 17, side=64, scenes=1)


@pytest.mark.parametrize("part", ["enhancer", "pose"])
def test_eight_bits_at_one_size(systems, tmp_path, monkeypatch, part):
    monkeypatch.setattr(export, "cost", lambda *rest: {"psnr_or": 0.0, "ap50_p": 0.0})
    monkeypatch.setattr(export, "calibration", lambda system, part: calibration(system, part, 3))
    row = export_int8(systems["single"], part, tmp_path / "x.onnx", 17, False, side=64, scenes=1)
    assert next(iter(row["inputs"].values()))["shape"] == [1, 3, 64, 64]
    assert row["precision"] == "int8" and row["cost"] == {"psnr_or": 0.0, "ap50_p": 0.0}
    session = session_for(row["file"])
    made = run_session(session, part_inputs(systems["single"], part, portraits(3, 64)))
    assert all(len(output) == 3 and np.isfinite(output).all() for output in made)


def test_a_pose_file_in_a_systems_place_finds_the_same_people(systems, sessions):
    system = systems["single"]
    view = with_file(system, "pose", sessions["single", "pose"][2])
    for scene in render_scenes(5, 3, 160, (1, 2), "test"):
        one, other = system.estimate(scene.image), view.estimate(scene.image)
        assert torch.allclose(one.boxes, other.boxes, atol=1e-2)
        assert torch.allclose(one.keypoints, other.keypoints, atol=1e-2)
    assert isinstance(system.pose.network, nn.Module) and view.pose is not system.pose


def test_a_float_file_costs_nothing(systems, sessions):
    spent = cost(systems["continuous"], "recoverer", sessions["continuous", "recoverer"][2],
                 render_scenes(7, 4, 160, (1, 2), "test"))
    assert abs(spent["psnr_or"]) < 1e-3 and spent["ap50_p"] == 0


def test_a_judge_needs_recovery():
    camera = PrivacySystem.load("single", recoverer=False)
    with pytest.raises(ExportError, match="no recoverer"):
        cost(camera, "enhancer", None, [])


def test_two_precisions_at_once_are_refused(systems, tmp_path):
    with pytest.raises(ExportError, match="allowed is one"):
        export_system(systems["single"], tmp_path, half=True, int8=True)


def test_the_last_layers_of_the_pose_network_stay_in_float(sessions):
    model = sessions["single", "pose"][1]
    kept = {n.name for n in model.graph.node if n.op_type == "Conv"} - set(dense_convolutions(model))
    assert len(kept) == 9  # three heads at three strides


def test_dense_convolutions_of_a_generator_without_carrier_are_all():
    net = EdgeGenerator(6, width=6, carrier=0.0)
    x = torch.rand(1, 3, 32, 32)
    model = to_onnx(Deployed(net).eval(), {"portrait": x, "guided": x}, ["enhanced"], 17, False)
    assert len(dense_convolutions(model)) == sum(n.op_type == "Conv" for n in model.graph.node)


@pytest.mark.parametrize("name", ["unet7", "unet8"])
def test_a_unet_without_transposed_convolutions_is_the_same_function(name):
    net = build_generator(name, ngf=4).eval()
    twin = untransposed(net)
    kinds = [{type(m).__name__ for m in one.modules()} for one in (net, twin)]
    assert "ConvTranspose2d" in kinds[0] and "ConvTranspose2d" not in kinds[1]
    x = torch.rand(2, 3, 256, 200)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), net(x), atol=1e-5, rtol=0)


def test_other_transposed_convolutions_stay():
    net = build_generator("resnet6", ngf=4).eval()
    assert any(isinstance(m, torch.nn.ConvTranspose2d) for m in untransposed(net).modules())
