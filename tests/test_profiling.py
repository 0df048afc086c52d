"Measuring: what a machine tells, turns, runtimes side by side, and the command."
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from privnb import profiling
from privnb.backends import BACKENDS, example_inputs, macs, open_backend, profile_table
from privnb.generators import build_generator, count_macs
from privnb.jetson import PAPER_FPS
from privnb.pipeline import add_profile, profile_pipeline, stage_chart
from privnb.portable import ExportError, part_module
from privnb.system import PrivacySystem

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def system():
    return PrivacySystem.load("single")


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_profile(parser.add_subparsers())
    return parser.parse_args(["profile", *map(str, words)])


# the machine

def test_the_power_mode_of_a_jetson_is_read(tmp_path, monkeypatch):
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Fan Mode:quiet'\necho 'NV Power Mode: MODE_30W'\necho 2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert profiling.power_mode() == "nvpmodel MODE_30W"


def test_a_tool_that_says_nothing_counts_as_none(tmp_path, monkeypatch):
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert profiling.power_mode(governor=tmp_path / "none") is None


def test_a_sensor_that_cannot_be_read_is_left_out(tmp_path):
    for number, files in enumerate(({"type": "gpu", "temp": "61250"}, {"type": "off"}, {})):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        for name, value in files.items():
            (zone / name).write_text(value)
    assert profiling.thermal(tmp_path) == {"0 gpu": 61.25}


def test_a_machine_without_sensors_says_nothing_of_them(monkeypatch):
    monkeypatch.setattr(profiling, "thermal", dict)
    monkeypatch.setattr(profiling, "power_mode", lambda: None)
    state = profiling.machine(3)
    assert not {"celsius", "power_mode"} & set(state) and state["threads"] == 3
    assert json.loads(json.dumps(state)) == state


@pytest.mark.parametrize("text, name", [("model name\t: A: B 1\n", "A: B 1"), ("", None)])
def test_the_processor_has_some_name(tmp_path, text, name):
    (tmp_path / "cpuinfo").write_text(text)
    assert profiling.processor(tmp_path / "cpuinfo") == (name or profiling.processor("/none"))
    assert profiling.processor("/none")


# the stopwatch

def test_warm_up_calls_are_not_counted():
    calls = []
    figures = profiling.profile_fps(lambda: calls.append(1), seconds=0, least=7, warm=3)
    assert len(calls) == 10 and figures["calls"] == 7


def test_the_slowest_call_shows_in_the_last_percentile_only():
    figures = profiling.percentiles([0.01] * 98 + [0.5, 0.5])
    assert figures["p50_ms"] == figures["p90_ms"] == pytest.approx(10)
    assert figures["p99_ms"] > 400 and figures["fps"] == pytest.approx(100)


def test_everyone_has_a_turn_in_every_round():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = profiling.interleaved(calls, rounds=4, warm=1, least=0)
    assert order == list("aabbcc") * 5 and all(t.shape == (4, 2) for t in times.values())


def test_a_turn_lasts_and_its_calls_count_alike():
    times = profiling.interleaved({"nap": lambda: time.sleep(0.002)}, rounds=1, least=0.02)
    assert 0.002 <= times["nap"][0, 0] < 0.02


def test_a_ratio_holds_where_the_machine_changes_its_pace():
    pace = np.array([1.0, 7.0, 2.0, 1.5])
    times = {"slow": np.stack([4 * pace, 4 * pace], 1), "fast": np.stack([pace, pace], 1)}
    assert profiling.ratio(times, "slow", "fast") == {"median": 4, "best": 4, "processor": 4}


def test_tidy_figures_fit_json():
    told = profiling.tidy({1: np.float32(0.123456), "b": [np.arange(2), (1.0, None)], "c": True})
    assert json.loads(json.dumps(told)) == {"1": 0.1235, "b": [[0, 1], [1.0, None]], "c": True}


# networks

def test_work_is_counted_as_the_generators_room_does():
    net = build_generator("unet7", ngf=4).eval()
    assert macs(net, {"x": torch.zeros(1, 3, 128, 128)}) == count_macs(net, 128)


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "torch"])
@pytest.mark.parametrize("part, batch", [("enhancer", 1), ("recoverer", 3)])
def test_a_runtime_computes_what_torch_does(system, backend, part, batch):
    if backend == "openvino":
        pytest.importorskip("openvino")
    opened = open_backend(system, part, backend, 64, batch, threads=1)
    module, inputs, _ = part_module(system, part, 64)
    with torch.no_grad():
        wanted = module(**example_inputs(inputs, batch)).numpy()
    made = opened.call()[0]
    assert made.shape == wanted.shape == (batch, 3, 64, 64)
    assert np.abs(made - wanted).max() < 1e-4
    assert opened.provider in ("CPUExecutionProvider", "OpenVINO CPU")


@pytest.mark.parametrize("change, named", [({"backend": "tensorrt"}, "tensorrt"), ({"batch": 0}, "0"),
                                           ({"threads": 0}, "0")])
def test_bad_settings_are_named(system, change, named):
    with pytest.raises(ValueError, match=named):
        open_backend(system, side=64, **change)
    with pytest.raises(ExportError, match="side"):
        open_backend(system, side=50)


def test_the_table_keeps_the_papers_figures_apart():
    row = {"network": "edge", "part": "enhancer", "side": 256, "batch": 1, "parameters": 2e5,
           "gmac": 0.4, "backend": "torch", "threads": 2, "p50_ms": 1.0, "p90_ms": 2.0,
           "p99_ms": 3.0, "fps": 1000.0}
    head, _, ours, *papers = [line.split(" | ") for line in profile_table([row]).splitlines()]
    assert head[-1].startswith("FPS, the paper's: Jetson AGX Orin") and ours[-1] == " |"
    assert len(papers) == len(PAPER_FPS) and all(line[-2] == "" for line in papers)
    assert papers[0][3:5] == ["41826", "6.02"] and papers[0][-1].startswith("63.71 / 61.22")


# the command

def test_the_whole_command(system, tmp_path, capsys):
    file = tmp_path / "deep" / "profile.json"
    args = parsed("single", "--size", 64, "--threads", 1, "--seconds", 0.1, "--frames", 3,
                  "--pipeline", "--json", file)
    assert args.run(args) == 0
    content = json.loads(file.read_text())
    assert content["machine"]["threads"] == 1 and content["paper"]["unet7"] == [63.71, 61.22]
    row, whole = content["rows"][0], content["pipeline"]
    assert row["provider"] == "CPUExecutionProvider" and row["bytes"] > 1e5 and row["memory_mb"] >= 0
    assert list(whole["stages_ms"]) == ["detect", "crop", "guide", "enhance", "paste"]
    assert [stream["every"] for stream in whole["streams"]] == [1, 3, 5]
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "the paper's" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is kept"):
        args.run(args)


def test_figures_and_chart_that_exist_are_kept_before_anything_is_measured(tmp_path):
    args = parsed(tmp_path / "none", "--pipeline", "--json", tmp_path / "r.json")
    (tmp_path / "r.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"r\.png: exists already and is kept"):
        args.run(args)  # and not that there is no such system
    with pytest.raises(ValueError, match="would have this name"):
        args.run(parsed(tmp_path / "none", "--pipeline", "--overwrite", "--json", tmp_path / "r.png"))
    assert (tmp_path / "r.png").read_bytes() == b"mine"


@pytest.mark.parametrize("words", [("--batch", 0), ("--threads", "many"), ("--backend", "tensorrt")])
def test_wrong_usage_ends_with_status_two(words, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("single", *words)
    assert stop.value.code == 2 and str(words[1]) in capsys.readouterr().err


def test_the_chart_shows_every_stage():
    figure = stage_chart({"stages_ms": {"detect": 3.0, "enhance": 5.0}, "p50_ms": 9.0}, "title")
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["detect", "enhance", "whole frame"]


def test_the_pipelines_figures_add_up():
    class Camera:
        def enhance(self, frame):
            seconds = dict.fromkeys(("detect", "crop", "guide", "enhance", "paste"), 0.002)
            return argparse.Namespace(seconds=seconds, people=3)

    figures = profile_pipeline(Camera(), [np.zeros((8, 8, 3), np.uint8)] * 4, rounds=2)
    assert figures["frames"] == 8 and figures["people"] == 3
    assert figures["stages_ms"] == pytest.approx(dict.fromkeys(figures["stages_ms"], 2.0))


@pytest.mark.parametrize("module", ["profiling", "pipeline", "stream"])
def test_measuring_and_streaming_load_no_torch(module):
    code = f"import privnb.{module}, sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "False", run.stderr


def test_kept_results_name_their_machine():
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert {"edge", "generators", "stream"} <= {path.stem for path in files}
    for path in files:
        content = json.loads(path.read_text())
        assert {"date", "processor", "cores", "load"} <= set(content), path.name
        assert str(ROOT) not in path.read_text()
