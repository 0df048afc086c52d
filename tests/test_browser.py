"""The widgets in a real browser: JupyterLab, Debian's chromium, the mouse and the keyboard.

What stands on the page is compared with what the pure functions give for the sliders' values. Screenshots go to the
folder PRIVNB_ARTIFACTS, if it is set, else to pytest's own temporary folder.
"""
import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privnb.guidance_explorer import Setting, explorer_picture, figures_text, guidance_figures, guided_view
from privnb.pictures import samples, unaware
from privnb.system import PrivacySystem
from privnb.tradeoff import Strength, panels, tradeoff_view
from privnb.widgets import jpeg

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
TOKEN = "privnb-test"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
NOTEBOOKS = ("start", "15b_guidance_explorer", "15f_training_monitor")
PATIENCE = 120_000  # ms; a loaded machine is slow, a broken widget is not there at all

if not Path(CHROMIUM).exists():
    pytest.skip(f"{CHROMIUM} is not installed", allow_module_level=True)
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "The address of a JupyterLab on a copy of the notebooks, with settings of its own."
    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS:
        shutil.copy(ROOT / "nbs" / f"{name}.ipynb", folder)
    port, home = free_port(), tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "JUPYTER_CONFIG_DIR": str(home / "config"),
                   "JUPYTER_DATA_DIR": str(home / "data"), "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
                   "JUPYTERLAB_SETTINGS_DIR": str(home / "lab"), "PYTHONPATH": str(ROOT)}
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
               f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    quiet = home / "lab" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    address, log = f"http://127.0.0.1:{port}", folder.parent / "lab.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=folder)
        try:
            wait_for(lambda: answers(address), 60, lambda: f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def fetch(address, path):
    "JSON of the server."
    with urllib.request.urlopen(f"{address}/api/{path}?token={TOKEN}", timeout=10) as answer:
        return json.load(answer)


def answers(address):
    try:
        return fetch(address, "status")
    except OSError:
        return False


def wait_for(true, seconds, otherwise=lambda: "it did not come true"):
    "Poll until it is true."
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def chromium():
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    folder = Path(os.environ.get("PRIVNB_ARTIFACTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def notebook(lab, chromium, artefacts):
    "A function that opens a notebook of the copy, runs all of it, and returns the page."
    opened = []

    def run_all(name):
        page = chromium.new_page(viewport={"width": 1500, "height": 1250})
        page.set_default_timeout(PATIENCE)
        faults = []
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{lab}/lab/tree/{name}.ipynb?token={TOKEN}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        wait_for(lambda: idle(lab, name), 60)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        opened.append((page, faults, name))
        return page

    yield run_all
    for page, faults, name in opened:
        page.screenshot(path=artefacts / f"{name}_end.png")
        page.close()
        end_kernels(lab)
        # a favicon that the server lacks says nothing about the widgets
        assert [fault for fault in faults if "favicon" not in fault] == []


def idle(lab, name):
    "Whether the notebook's kernel waits for work."
    return any(session["path"] == f"{name}.ipynb" and session["kernel"]["execution_state"] == "idle"
               for session in fetch(lab, "sessions"))


def end_kernels(lab):
    for session in fetch(lab, "sessions"):
        request = urllib.request.Request(f"{lab}/api/sessions/{session['id']}?token={TOKEN}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()


def finished(page, lab, name):
    "Wait until everything has run."
    page.wait_for_timeout(500)
    wait_for(lambda: idle(lab, name), 120)
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']:has-text('Error')").count() == 0


def widget(page, words):
    "The widget whose output holds a number field of that name."
    found = page.locator(".jp-OutputArea-output").filter(has=page.get_by_role("spinbutton", name=words))
    found.first.wait_for()
    found.first.scroll_into_view_if_needed()
    return found


def bytes_of(image):
    return base64.b64decode(image.get_attribute("src").partition(",")[2])


def number(field):
    return float(field.input_value())


def eventually(page, what, wanted, seconds=60):
    "Wait until a function gives what is wanted; the slider's answer may still be on its way."
    end = time.monotonic() + seconds
    while what() != wanted:
        assert time.monotonic() < end, f"{what()!r:.200} is not {wanted!r:.200}"
        page.wait_for_timeout(50)


def settled(page, what, rest=0.5, seconds=30):
    "What a function gives once that has been the same for a while: a busy machine moves things late."
    end, value, since = time.monotonic() + seconds, what(), time.monotonic()
    while time.monotonic() - since < rest:
        assert time.monotonic() < end, f"{value!r:.200} still changes"
        page.wait_for_timeout(50)
        before, value = value, what()
        since = since if value == before else time.monotonic()
    return value


def alike(shown, wanted):
    "Whether pictures are the same but for a rounding here and there: sums in another order."
    pairs = [[np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) for data in pair]
             for pair in zip(shown, wanted)]
    return all(a.shape == b.shape and abs(a - b).mean() < 0.1 for a, b in pairs)


def drag(page, row, share):
    "Drag the handle of a row's slider along the track, in small steps, as a hand does."
    handle, track = row.locator(".noUi-handle"), row.locator(".noUi-base")
    handle.scroll_into_view_if_needed()
    a, b = settled(page, lambda: (handle.bounding_box(), track.bounding_box()))
    y = a["y"] + a["height"] / 2
    page.mouse.move(a["x"] + a["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(b["x"] + share * b["width"], y, steps=25)
    page.mouse.up()


def row_of(area, name):
    "The row of a named number field: its slider stands beside it."
    field = area.get_by_role("spinbutton", name=name)
    return field.locator("xpath=ancestor::div[contains(@class, 'widget-hbox')][1]")


def expected_guidance(sample, setting):
    view = guided_view(sample, setting)
    figures, joints = guidance_figures(view, sample, unaware())
    return jpeg(explorer_picture(view, setting, joints)), figures_text(figures)


def test_the_guidance_explorer(notebook, lab, artefacts):
    page = notebook("15b_guidance_explorer")
    area = widget(page, "Wipe, per cent")
    finished(page, lab, "15b_guidance_explorer")
    sample = samples()["two people (rendered)"]()
    picture, status = area.locator("img"), area.get_by_role("status").last
    radius = area.get_by_role("spinbutton", name="Radius, pixels")
    wipe = number(area.get_by_role("spinbutton", name="Wipe, per cent"))

    def setting(kind):
        return Setting(kind, number(radius), wipe=wipe)

    untouched = number(radius)
    drag(page, row_of(area, "Radius, pixels"), 0.25)
    eventually(page, lambda: number(radius) != untouched, True)
    assert 2 <= settled(page, lambda: number(radius)) <= 6
    data, text = expected_guidance(sample, setting("blur"))
    eventually(page, lambda: bytes_of(picture), data)
    eventually(page, lambda: status.inner_text(), text)
    assert text in picture.get_attribute("alt")
    page.screenshot(path=artefacts / "guidance_explorer_mouse.png")

    before = number(radius)
    row_of(area, "Radius, pixels").locator(".noUi-handle").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    eventually(page, lambda: number(radius), before + 2)
    other, words = expected_guidance(sample, setting("blur"))
    assert other != data and words != text
    eventually(page, lambda: bytes_of(picture), other)
    eventually(page, lambda: status.inner_text(), words)

    area.get_by_label("Guidance").select_option("pixelate")
    radius.fill("12")
    radius.press("Enter")
    eventually(page, lambda: bytes_of(picture), expected_guidance(sample, setting("pixelate"))[0])
    page.screenshot(path=artefacts / "guidance_explorer_keyboard.png")

    broken = [{"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}]
    last = bytes_of(picture)
    with page.expect_file_chooser() as chooser:
        area.get_by_role("button", name="Upload a picture").click()
    chooser.value.set_files(broken)
    area.get_by_role("alert").filter(has_text="broken.png").wait_for()
    assert bytes_of(picture) == last
    page.screenshot(path=artefacts / "guidance_explorer_broken_upload.png")


def test_the_start_page(notebook, lab, artefacts):
    page = notebook("start")
    area = widget(page, "Noise strength").last
    finished(page, lab, "start")
    area.get_by_role("listbox", name="Points").wait_for()
    area.scroll_into_view_if_needed()
    sample, system = samples()["two people (rendered)"](), PrivacySystem.load("continuous")
    radius = area.get_by_role("spinbutton", name="Radius, pixels")
    versions, points = area.locator("img"), area.get_by_role("listbox", name="Points")

    def shown():
        return [bytes_of(versions.nth(i)) for i in range(4)]

    def wanted(radius):
        view = tradeoff_view(sample, system, Strength("pixelate", radius))
        return [jpeg(picture) for picture in panels(view).values()]

    eventually(page, lambda: points.locator("option").count(), 3)
    first, plane = wanted(8.0), bytes_of(versions.nth(4))
    eventually(page, lambda: alike(shown(), first), True)
    drag(page, row_of(area, "Radius, pixels"), 0.4)
    eventually(page, lambda: number(radius) != 8, True)
    here = settled(page, lambda: number(radius))
    assert 10 <= here <= 16
    there = wanted(here)
    eventually(page, lambda: alike(shown(), there), True)
    assert not alike(shown(), first) and bytes_of(versions.nth(4)) != plane
    assert points.locator("option").count() >= 5

    row_of(area, "Radius, pixels").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    eventually(page, lambda: number(radius), here - 1)
    beside = wanted(here - 1)
    eventually(page, lambda: alike(shown(), beside), True)
    page.screenshot(path=artefacts / "tradeoff_explorer.png")

    points.focus()
    page.keyboard.press("End")
    eventually(page, lambda: number(radius), 8.0)
    eventually(page, lambda: alike(shown(), first), True)

    radius.fill("2")
    radius.press("Enter")
    area.get_by_role("alert").filter(has_text="plain guidance only").wait_for()
    assert number(radius) == 2
    page.screenshot(path=artefacts / "tradeoff_explorer_beyond.png")
    assert len(page.get_by_role("link", name=re.compile(r"^\d\d")).all()) >= 30


def test_the_training_monitor(notebook, lab, artefacts):
    page = notebook("15f_training_monitor")
    area = widget(page, "T, threshold")
    finished(page, lab, "15f_training_monitor")
    state, curves = area.get_by_role("status").first, area.locator("img").first
    start, pause = (area.get_by_role("button", name=re.compile(name)) for name in ("Start|Resume", "Pause"))

    def steps():
        return int(re.search(r"losses of (\d+) steps", curves.get_attribute("alt"))[1])

    assert state.inner_text() == "new" and steps() == 0
    start.click()
    wait_for(lambda: page.wait_for_timeout(50) or steps() >= 2, 120)
    growing = bytes_of(curves)
    pause.focus()
    page.keyboard.press("Enter")
    wait_for(lambda: page.wait_for_timeout(50) or state.inner_text().startswith("paused"), 60)
    page.wait_for_timeout(500)
    rest, resting = steps(), bytes_of(curves)
    assert resting != growing or rest == 2
    row_of(area, "T, threshold").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    area.get_by_text("T, threshold 0.025 counts from the next step on").wait_for()
    page.wait_for_timeout(1000)
    assert steps() == rest and bytes_of(curves) == resting
    page.screenshot(path=artefacts / "training_monitor_paused.png")

    start.click()
    wait_for(lambda: page.wait_for_timeout(50) or steps() >= max(rest + 3, 11), 120)
    assert "1 changes" in curves.get_attribute("alt") and bytes_of(curves) != resting
    page.screenshot(path=artefacts / "training_monitor_resumed.png")
    area.get_by_role("button", name="Stop").click()
    wait_for(lambda: page.wait_for_timeout(50) or state.inner_text().startswith("stopped"), 60)
