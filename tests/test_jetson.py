"Commands by version, the accelerator's form, and logs written by hand in their documented formats."
import shlex
from pathlib import Path

import onnx
import pytest
import torch

from privnb.jetson import (MAJORS, PAPER_FPS, dla_variant, export_dla, foreign_operations,
                           parse_tegrastats, parse_trtexec, trtexec_command)
from privnb.portable import ExportError, part_inputs, run_session, sample_portraits, session_for
from privnb.system import PrivacySystem, SystemConfig

DATA = Path(__file__).parent / "data"
REMOVED = {8: (), 10: ("--workspace", "--buildOnly", "--minTiming", "--explicitBatch", "--maxBatch"),
           11: ("--workspace", "--buildOnly", "--fp16", "--int8", "--best", "--calib", "--bf16")}


def log(name):
    text = (DATA / name).read_text()
    assert text.startswith("# WRITTEN BY HAND")
    return text


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("precision", ["float", "half", "int8"])
@pytest.mark.parametrize("build_only", [True, False])
def test_no_command_has_a_flag_that_its_version_removed(major, precision, build_only):
    words = shlex.split(trtexec_command("a b.onnx", major, precision, build_only=build_only))
    assert words[:3] == ["trtexec", "--onnx=a b.onnx", "--saveEngine=a b.plan"]
    assert not {word.partition("=")[0] for word in words} & set(REMOVED[major])
    assert ("--fp16" in words) == (major < 11 and precision != "float")
    assert ("--int8" in words) == (major < 11 and precision == "int8")


def test_free_sizes_become_one_size():
    line = trtexec_command("e.onnx", 10, shapes={"portrait": (1, 3, 256, 256), "code": (4,)})
    for kind in ("min", "opt", "max"):
        assert f"--{kind}Shapes=portrait:1x3x256x256,code:4" in line


def test_the_accelerator_needs_a_short_type():
    assert "--useDLACore=1 --allowGPUFallback" in trtexec_command("e.onnx", 8, "half", dla=1)
    with pytest.raises(ValueError, match="precision: float"):
        trtexec_command("e.onnx", 8, "float", dla=0)


@pytest.mark.parametrize("arguments", [(9, "half"), (10, "fp8")])
def test_unknown_versions_and_precisions_are_refused(arguments):
    with pytest.raises(ValueError, match="allowed are"):
        trtexec_command("e.onnx", *arguments)


@pytest.fixture(scope="module")
def system():
    return PrivacySystem.load("single")


@pytest.mark.parametrize("half", [False, True])
def test_the_dla_file_has_no_foreign_operation_and_does_what_torch_does(system, tmp_path, half):
    row = export_dla(system, tmp_path / "e.onnx", side=96, half=half, count=4)
    model = onnx.load(row["file"])
    assert foreign_operations(model) == []
    sizes = [d.dim_value for v in model.graph.input for d in v.type.tensor_type.shape.dim]
    assert sizes == 2 * [1, 3, 96, 96]
    inputs = part_inputs(system, "enhancer", sample_portraits(system, 3, 96, seed=70))
    (made,) = run_session(session_for(row["file"]), inputs)
    with torch.no_grad():
        wanted = system.enhance_portraits(inputs["portrait"])[1].numpy()
    apart = abs(made.clip(0, 1) - wanted).max() * 255
    assert apart < (0.6 if half else 0.501)


@pytest.mark.parametrize("kind, radius", [("pixelate", 6.0), ("blur", 9.0)])
def test_one_strength_of_a_continuous_system_is_folded_in(tmp_path, kind, radius):
    told = PrivacySystem.load("continuous").at(kind, radius)
    row = export_dla(told, tmp_path / "e.onnx", side=64, count=2)
    assert foreign_operations(row["file"]) == [] and set(row["inputs"]) == {"portrait", "guided"}
    assert row["figures"]["max"] < 1e-4
    x = sample_portraits(told, 2, 64)
    with torch.no_grad():
        y, wanted = told.enhance_portraits(x)
        assert (dla_variant(told, 64)(x, y).clamp(0, 1) - wanted).abs().max() * 255 < 0.501


def test_other_generators_have_no_dla_form():
    small = SystemConfig(generator="unet7", options={"ngf": 2}, pose={"width": 0.0625})
    with pytest.raises(ExportError, match="unet7; allowed"):
        dla_variant(PrivacySystem(small, recoverer=False))


def test_grouped_or_padded_transposed_convolutions_are_foreign():
    def graph(**attributes):
        node = onnx.helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))

    assert foreign_operations(graph()) == []
    assert foreign_operations(graph(group=2)) == foreign_operations(graph(pads=[1, 1, 1, 1])) != []


def test_a_trtexec_log_is_read():
    read = parse_trtexec(log("trtexec_8.log"))
    assert (read["fps"], read["version"], read["unstable"]) == (400, "8502", True)
    assert read["latency"] == {"min": 2.25, "max": 4.5, "mean": 2.5, "median": 2.375,
                               "p90": 2.75, "p95": 3, "p99": 4}
    assert read["compute"]["median"] == 2.125 and read["enqueue"]["p99"] == 0.75
    assert "--fp16" in read["command"] and len(read["warnings"]) == 2


def test_a_stable_run_of_an_older_log_without_percentiles():
    text = "\n".join(line for line in log("trtexec_8.log").splitlines() if "unstable" not in line)
    for share in (90, 95):
        text = text.replace(f"percentile({share}%) = 2.75 ms, ", "")
    read = parse_trtexec(text)
    assert not read["unstable"] and "p90" not in read["latency"] and read["latency"]["p99"] == 4


def test_a_failed_run_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="Unknown option: --workspace"):
        parse_trtexec(log("trtexec_10_failed.log"))


def test_a_log_that_was_cut_is_refused():
    text = log("trtexec_8.log")
    for cut in (text.partition("=== Performance")[0], text.partition("&&&& PASSED")[0], ""):
        with pytest.raises(ValueError, match="no summary"):
            parse_trtexec(cut)


def test_tegrastats_of_four_boards():
    read = parse_tegrastats(log("tegrastats.log"))
    first, second, old, xavier = read["lines"]
    assert first["cores_off"] == 1 and first["cpu_percent"] == 20 and first["gpu_percent"] == 50
    assert first["celsius"] == {"cpu": 45.5, "tboard": 35, "gpu": 44.25, "tj": 46}
    assert first["milliwatt"] == {"VDD_GPU_SOC": 6000, "VDD_CPU_CV": 1000, "VIN_SYS_5V0": 4000}
    assert second["ram_mb"] == read["ram_mb"] == 4200 and read["hottest"] == 47
    assert old["milliwatt"] == {"POM_5V_IN": 1388, "POM_5V_GPU": 122}
    assert xavier["milliwatt"] == {"GPU": 1084, "CPU": 2170, "SOC": 1550, "CV": 0, "VDDRQ": 464, "SYS5V": 1450}
    assert xavier["ram_mb"] == 1500 and xavier["gpu_percent"] == 40 and xavier["celsius"]["thermal"] == 31.2
    assert read["milliwatt"]["VDD_GPU_SOC"] == 7000 and read["gpu_percent"] == 40 == (50 + 70 + 0 + 40) / 4


def test_another_text_is_no_tegrastats():
    with pytest.raises(ValueError, match="no line"):
        parse_tegrastats("hello\nRAM is full\n")


def test_no_figure_of_ours_is_labelled_jetson():
    "All numbers of frames per second in the room are those of the paper's Table 4."
    flat = [value for pair in PAPER_FPS.values() for value in pair]
    assert flat == [63.71, 61.22, 59.84, 57.19, 39.95, 37.46, 34.82, 33.96]
