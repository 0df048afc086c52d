"""Render the picture of the README from people who do not exist.

    python tools/make_picture.py

The demonstration's poster without the photographs of real people, as a palette PNG in nbs/images/demo.png.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image

from privnb.demo import poster, samples, show, shrunk
from privnb.system import PrivacySystem

TARGET = Path(__file__).parents[1] / "nbs" / "images" / "demo.png"


def main():
    system = PrivacySystem.load("default")
    photographs = [make() for make in samples()]
    invented = [p for p in photographs if p.file.startswith(("openpeople:", "rendered:"))]
    with tempfile.TemporaryDirectory() as folder:
        shown = [show(system, shrunk(p, 1024), folder) for p in invented]
    buffer = io.BytesIO()
    poster(shown, width=12.0).savefig(buffer, format="png")
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE, kmeans=4)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    picture.save(TARGET, optimize=True)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
