"The trainer: seeds, resuming, interruption, what each term may change, configurations."

import json
import math
import os
import signal
import subprocess
import sys

import pytest
import torch

from privnb import trainer as room
from privnb.config import TrainConfig, preset
from privnb.figures import evaluate, render_scenes
from privnb.pose import PoseEstimator
from privnb.system import PrivacySystem
from privnb.trainer import JointTrainer


def smoke(**changes):
    defaults = dict(pretrained="", conventional=False, seed=5, test_scenes=2)
    return preset("smoke", "pixelate", 12, **{**defaults, **changes})


def weights(run):
    return {**run.system.state_dict(), **{f"d.{k}": v for k, v in run.critics.state_dict().items()}}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run = JointTrainer(smoke(), tmp_path_factory.mktemp("straight"), progress=False)
    run.train()
    return run


def test_same_seed_same_weights(straight, tmp_path):
    again = JointTrainer(smoke(), tmp_path, progress=False)
    again.train()
    assert same(weights(straight), weights(again))


def test_another_seed_other_weights(straight, tmp_path):
    other = JointTrainer(smoke(seed=6), tmp_path, progress=False)
    other.train(until=1)
    assert not same(weights(straight), weights(other))


@pytest.mark.parametrize("stops", [(1,), (3,), (1, 2, 3)])
def test_interrupted_at_any_step_and_resumed(straight, tmp_path, stops):
    for stop in stops:
        JointTrainer(smoke(), tmp_path, progress=False).train(until=stop)
    resumed = JointTrainer(smoke(), tmp_path, progress=False)
    assert resumed.step == stops[-1]
    resumed.train()
    assert same(weights(straight), weights(resumed))
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_ctrl_c_saves_and_resumes(straight, tmp_path, monkeypatch, capsys):
    run = JointTrainer(smoke(), tmp_path, progress=False)
    step = run._joint_step

    def interrupted(*args):
        if run.step == 3:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(run, "_joint_step", interrupted)
    run.train()
    assert "interrupted at step 3" in capsys.readouterr().out
    resumed = JointTrainer(smoke(), tmp_path, progress=False)
    assert resumed.step == 3
    resumed.train()
    assert same(weights(straight), weights(resumed))


@pytest.fixture
def keyboard():
    "Python's own handler of Ctrl-C; a shell starts what it puts in the background without one."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["_accumulate", "_critic_step"])
def test_ctrl_c_within_a_step_waits_for_its_end(straight, tmp_path, monkeypatch, capsys, where,
                                                keyboard):
    run = JointTrainer(smoke(), tmp_path, progress=False)
    part = getattr(run, where)

    def interrupted(*args):
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return part(*args)

    monkeypatch.setattr(run, where, interrupted)
    assert [line["step"] for line in run.train()] == [1, 2, 3]
    assert "interrupted at step 3" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is keyboard
    resumed = JointTrainer(smoke(), tmp_path, progress=False)
    assert resumed.step == 3
    resumed.train()
    assert same(weights(straight), weights(resumed))
    assert same(straight.average.weights, resumed.average.weights)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_a_gradient_that_is_not_finite_spoils_nothing(tmp_path, monkeypatch):
    run = JointTrainer(smoke(), tmp_path, progress=False)
    run.train(until=2)
    kept, part = weights(JointTrainer(smoke(), tmp_path, progress=False)), run._accumulate

    def broken(*args):
        found = part(*args)
        next(p for p in run.system.parameters() if p.grad is not None).grad.flatten()[0] = math.nan
        return found

    monkeypatch.setattr(run, "_accumulate", broken)
    with pytest.raises(FloatingPointError, match="step 3: a gradient is not finite"):
        run.train()
    assert same(kept, weights(JointTrainer(smoke(), tmp_path, progress=False)))


@pytest.mark.parametrize("guidance, radius", [("noise", 12), ("pixelate", 60), ("blur", 1)])
def test_a_strength_that_will_not_be_trained_is_refused_at_once(tmp_path, guidance, radius):
    config = preset("continuous", guidance, radius, steps=1, pretrained="", pretrain_steps=0)
    with pytest.raises(ValueError, match=f"guidance: {guidance} {radius}; this system was trained for pixelate 4 to 16"):
        JointTrainer(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_killed_between_checkpoints(straight, tmp_path, monkeypatch):
    run = JointTrainer(smoke(), tmp_path, progress=False)
    step = run._joint_step

    def killed(*args):
        if run.step == 3:
            raise SystemExit
        return step(*args)

    monkeypatch.setattr(run, "_joint_step", killed)
    with pytest.raises(SystemExit):
        run.train()
    resumed = JointTrainer(smoke(), tmp_path, progress=False)
    assert resumed.step == 2
    resumed.train()
    assert same(weights(straight), weights(resumed))


@pytest.mark.parametrize("step", [0, 2])
def test_killed_between_history_and_checkpoint(straight, tmp_path, step):
    "The history is ahead of the weights, its last line cut: nothing is lost or taken twice."
    if step:
        JointTrainer(smoke(), tmp_path, progress=False).train(until=step)
    else:
        JointTrainer(smoke(), tmp_path, progress=False)
    ahead = (straight.out / "history.jsonl").read_text().splitlines()[step:]
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write("\n".join(ahead)[:-7])
    resumed = JointTrainer(smoke(), tmp_path, progress=False)
    resumed.train()
    assert same(weights(straight), weights(resumed))
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_rehearsal_and_parts_resume_too(tmp_path):
    config = smoke(rehearse=2, accumulate=2)
    whole = JointTrainer(config, tmp_path / "whole", progress=False)
    whole.train()
    JointTrainer(config, tmp_path / "halves", progress=False).train(until=2)
    resumed = JointTrainer(config, tmp_path / "halves", progress=False)
    resumed.train()
    assert same(weights(whole), weights(resumed))


def test_the_rehearsal_reaches_the_estimator_only(tmp_path):
    runs = [JointTrainer(smoke(rehearse=n, lambda_pose=0.0), tmp_path / str(n), progress=False)
            for n in (0, 2)]
    for run in runs:
        run.train(until=1)
    assert same(runs[0].system.enhancer.state_dict(), runs[1].system.enhancer.state_dict())
    runs = [JointTrainer(smoke(rehearse=n), tmp_path / f"pose{n}", progress=False) for n in (0, 2)]
    for run in runs:
        run.train(until=1)
    assert not same(runs[0].system.pose.state_dict(), runs[1].system.pose.state_dict())


def test_length_in_epochs(tmp_path):
    assert JointTrainer(smoke(epochs=3), tmp_path, progress=False).steps == 3 * (8 // 2)


def test_a_batch_is_shared_evenly(tmp_path):
    with pytest.raises(ValueError, match="batch: 2; allowed are multiples of 3"):
        JointTrainer(smoke(accumulate=3), tmp_path, progress=False)


def test_half_precision_rounds_the_arithmetic_only(tmp_path, monkeypatch):
    seen, forward = [], room.JointStep.forward

    def watched(step, batch, *rest):
        made = torch.nn.functional.conv2d(batch.images, torch.ones(1, 3, 1, 1))
        seen.append((batch.boxes.dtype, batch.keypoints.dtype, batch.images.dtype, made.dtype))
        return forward(step, batch, *rest)

    monkeypatch.setattr(room.JointStep, "forward", watched)
    run = JointTrainer(smoke(precision="bf16-mixed"), tmp_path / "a", progress=False)
    assert all(math.isfinite(line["total"]) for line in run.train(until=2))
    assert set(seen) == {(torch.float32, torch.float32, torch.float32, torch.bfloat16)}
    with pytest.raises(ValueError, match="precision: 16-mixed; allowed"):
        JointTrainer(smoke(precision="16-mixed"), tmp_path / "b", progress=False)


def test_two_processes_follow_one(tmp_path):
    """Equal global batch: the same losses, up to what depends on the company within a part.

    Batch normalisation and the pose loss's divisor see two scenes instead of four, so the pose
    loss may differ by a quarter at a step; style, recovery and adversarial terms are means.
    """
    command = [sys.executable, "-m", "privnb.cli", "train", "--preset", "smoke", "--guidance",
               "pixelate", "--radius", "12", "--batch", "4", "--quiet"]
    lines = {}
    for count in ("1", "2"):
        out = tmp_path / count
        done = subprocess.run([*command, "--devices", count, "--out", str(out)],
                              env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
                              text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        text = (out / "history.jsonl").read_text()
        lines[count] = [json.loads(line) for line in text.splitlines()]
    assert len(lines["1"]) == len(lines["2"]) == 4
    for one, two in zip(lines["1"], lines["2"]):
        assert two["recovery"] == pytest.approx(one["recovery"], rel=0.1)
        assert two["gan"] == pytest.approx(one["gan"], rel=0.05)
        assert two["pose"] == pytest.approx(one["pose"], rel=0.25)
        assert two["images_s"] > 0 and two["memory_mb"] > 0


def test_a_folder_holds_one_run(straight):
    with pytest.raises(ValueError, match="another run"):
        JointTrainer(smoke(threshold=0.1), straight.out, progress=False)


def test_config_errors():
    with pytest.raises(ValueError, match="preset: 'tiny'"):
        preset("tiny")
    with pytest.raises(ValueError, match="unknown entries"):
        TrainConfig.from_dict({**smoke().to_dict(), "lessons": 3})


@pytest.mark.parametrize("kind", ["blur", "noise"])
def test_other_guidances_and_options(tmp_path, kind):
    config = preset("smoke", kind, 4, pretrained="", conventional=False, steps=1, rehearse=2,
                    lambda_gan=0.0, mode="hinge")
    history = JointTrainer(config, tmp_path, progress=False).train()
    assert set(history[0]) >= {"style", "recovery", "pose", "correlation", "total"}
    assert "gan" not in history[0]


def test_unet_as_in_the_paper(tmp_path):
    config = smoke(steps=1)
    system = dict(config.system.to_dict(), generator="unet7", options={"ngf": 4}, guided=False,
                  native=False, portrait=128)
    values = {**config.to_dict(), "system": system}
    run = JointTrainer(TrainConfig.from_dict(values), tmp_path, progress=False)
    assert run.train()[0]["recovery"] > 0
    assert run.system.enhancer.in_channels == 3


def test_batches_without_people(tmp_path):
    run = JointTrainer(smoke(people=(0, 0), steps=1), tmp_path, progress=False)
    assert run.train()[0]["recovery"] == 0


def test_finish_writes_system_and_figures(tmp_path):
    run = JointTrainer(smoke(conventional=True, steps=1), tmp_path, progress=False)
    run.train()
    figures = run.finish()
    keys = {"psnr_op", "ssim_op", "psnr_or", "ssim_or", "psnr_oa", "ssim_oa", "ap50_p", "ap50_r",
            "ap50_o_pre", "ap50_p_conventional", "ap50_p_unaware", "ap50_a_unaware"}
    assert keys <= set(figures)
    assert json.loads((tmp_path / "metrics.json").read_text()).keys() == figures.keys()
    loaded = PrivacySystem.load(tmp_path)
    assert loaded.fingerprint() == run.system.fingerprint()
    kept = (tmp_path / "conventional.safetensors").read_bytes()
    run.conventional()
    assert (tmp_path / "conventional.safetensors").read_bytes() == kept


def test_evaluation_without_comparisons():
    system = PrivacySystem(smoke().system).eval()
    figures = evaluate(system, render_scenes(7, 2, 96, (1, 1), "test"))
    assert "ap50_o_pre" not in figures and figures["psnr_or"] > figures["psnr_op"]


def test_the_reference_is_kept_apart(straight):
    start = PoseEstimator.from_file(straight.out / "pretrained.safetensors").state_dict()
    trained = straight.system.pose.state_dict()
    assert any(not torch.equal(start[k], trained[k]) for k in start)


def test_recovery_from_simulated_jpeg_reaches_both_generators(tmp_path):
    run = JointTrainer(smoke(jpeg=1.0, lambda_pose=0.0, lambda_style=0.0, lambda_gan=0.0),
                       tmp_path, progress=False)
    before = {k: v.clone() for k, v in run.system.state_dict().items()}
    lines = run.train(until=2)
    after = run.system.state_dict()
    for part in ("enhancer", "recoverer"):
        assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith(part))
    plain = JointTrainer(smoke(), tmp_path / "plain", progress=False).train(until=2)
    assert lines[0]["recovery"] > 1.5 * plain[0]["recovery"]  # the carrier does not survive
