"What must be the same on an NVIDIA GPU; skipped where there is none."
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from privnb.config import preset
from privnb.rows import Row
from privnb.scenes import make_scene
from privnb.system import PrivacySystem
from privnb.tables import compute_row, read_record
from privnb.trainer import JointTrainer
from privnb.weights import SYSTEMS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def scene():
    return make_scene(7, 1, size=256, people=(2, 3), split="test")


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_photograph_is_enhanced_and_recovered_as_on_the_cpu(name, scene):
    here, there = PrivacySystem.load(name), PrivacySystem.load(name).to("cuda")
    one, two = (system.enhance(scene.image, scene.boxes) for system in (here, there))
    assert one.record["squares"] == two.record["squares"] and one.people
    assert np.abs(one.image.astype(int) - two.image).max() <= 2
    if not here.blind:
        back = there.recover(two.image, two.record)
        assert np.abs(here.recover(two.image, two.record).astype(int) - back).max() <= 2


def test_people_are_found_at_the_same_places(scene):
    here, there = PrivacySystem.load(), PrivacySystem.load().to("cuda")
    one, two = here.estimate(scene.image), there.estimate(scene.image)
    assert len(one) == len(two) and not two.boxes.is_cuda
    assert torch.allclose(one.boxes, two.boxes, atol=1.0)


def tiny(accelerator, steps=2):
    config = preset("smoke", steps=steps, every=1, pose_bf16=False, accelerator=accelerator)
    return replace(config, conventional=False)


def test_the_first_step_has_the_same_losses(tmp_path):
    found = [JointTrainer(tiny(where), tmp_path / where, False).train(1)[0]
             for where in ("cpu", "cuda")]
    for name in ("style", "recovery", "pose", "gan", "total"):
        assert found[0][name] == pytest.approx(found[1][name], rel=0.01), name


def test_a_run_goes_on_elsewhere(tmp_path):
    for step, where in enumerate(("cuda", "cpu", "cuda"), 1):
        run = JointTrainer(tiny(where, 3), tmp_path, False)
        assert run.step == step - 1
        run.train(step)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_a_row_of_a_table_names_the_card(tmp_path):
    few = {"steps": 2, "scenes": 4, "test_scenes": 2}
    path = compute_row(Row("blur", 8.0), "smoke", "scenes", 0, tmp_path, few, False, "cuda")
    record = read_record(path)
    assert torch.cuda.get_device_name() in record["machine"]
    assert "--accelerator cuda" in record["command"]
