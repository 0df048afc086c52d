"""Broken files for privnb's readers: every one must be refused with a type, or read; none may crash, hang or swell.

    python tools/fuzz.py --target container --count 100000 --seed 0
    python tools/fuzz.py --target container --seed 0 --only 4711      # that one input again, with its traceback

Targets: container (side files, PNG chunks, public keys, seals of a hostile sender), keys, picture, annotations (COCO), mpii (JSON),
matlab (MPII's release), yolo (YAML, lists of pictures, labels).

Each input is made from the seed and its number alone. What is counted: how each was answered, the slowest one, and the peak of
memory. What must not happen is kept under --keep, one file each, to become a regression test. Status 1 where anything was found.
"""

import argparse
import copy
import hashlib
import io
import json
import resource
import signal
import struct
import sys
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from PIL import Image

from privnb.container import (END, MOST_BODY, PICTURE, PORTRAIT, Head, Record, from_png, into_png,
                              read_seal)
from privnb.keys import PrivateKey, SealError, parse_key, parse_public
from privnb.locks import derived_key, lock_record, pack_pixels, sign_head, wrap_key
from privnb.sealing import FACTS, Sealer, open_frames, restore

LIMIT = 5.0  # seconds an input may take
MEMORY = 2 << 30  # bytes that the process may reach
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, MOST_BODY, MOST_BODY + 1)


# mutations

def mutate(content, rng):
    "A copy with one to four changes: bits, extremes, cuts, copies, exchanges, noise."
    made = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not made:
            break
        a, b = sorted(int(i) for i in rng.integers(0, len(made), 2))
        near = int(rng.integers(min(len(made), 400)))  # heads are short and matter most
        place = near if rng.random() < 0.5 else a
        how = int(rng.integers(8))
        if how == 0:
            made[place] ^= 1 << int(rng.integers(8))
        elif how == 1:
            made[place] = int(rng.integers(256))
        elif how == 2:
            width = int(rng.choice([1, 2, 4, 8]))
            value = EXTREMES[int(rng.integers(len(EXTREMES)))] % (1 << 8 * width)
            made[place:place + width] = value.to_bytes(width, "big")
        elif how == 3:
            del made[a:b]
        elif how == 4:
            made[b:b] = made[a:b][:4096]
        elif how == 5:
            made = made[:a]
        elif how == 6:
            size = min(b - a, len(made) - b)
            made[a:a + size], made[b:b + size] = made[b:b + size], made[a:a + size]
        else:
            made[place:place + 16] = rng.bytes(16)
    return bytes(made)


# the container: what is mutated, and what is asked of it

class Container:
    "Sealed files of pictures and clips, PNG files that carry them, key files; opened with the key."

    def __init__(self):
        rng = np.random.default_rng(7)
        self.key = PrivateKey("fuzz", rng.bytes(32), rng.bytes(32))
        self.other = PrivateKey("other", rng.bytes(32), rng.bytes(32))
        self.image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        self.enhanced, self.record = self.image.copy(), {"squares": [[2, 2, 14, 14], [8, 4, 24, 20]],
                                                         "filled": [[20, 0, 40, 6]], "system": "fuzz"}
        for x0, y0, x1, y1 in (*self.record["squares"], *self.record["filled"]):
            self.enhanced[y0:y1, x0:x1] = 128
        buffer = io.BytesIO()
        Image.fromarray(self.enhanced).save(buffer, "PNG")
        one, clip = self.sealed(1), self.sealed(3)
        self.corpus = [one, clip, into_png(buffer.getvalue(), one),
                       (self.key.public.line + "\n").encode()]

    def sealed(self, frames):
        "A sealed picture or clip."
        stream = io.BytesIO()
        sealer = Sealer(stream, [self.key.public, self.other.public], "fuzz")
        for number in range(frames):
            sealer.add(self.image, self.enhanced, self.record, number)
        sealer.close()
        return stream.getvalue()

    def hostile(self, rng):
        "A seal that opens, made by somebody who knows the public key and means harm: wrong inside."
        content_key, head = rng.bytes(32), Head(rng.bytes(16), "evil")
        head = sign_head(replace(head, slots=(wrap_key(content_key, head.fixed, self.key.public),)),
                         content_key)
        cipher = AESGCM(derived_key(content_key, head.fixed, b"records"))
        name = hashlib.sha256(rng.bytes(4)).digest()
        facts = FACTS.pack(*(int(i) for i in rng.choice([1, 24, 32, 70000, 2**32 - 1], 2)),
                           rng.bytes(32), rng.bytes(768))
        records = [Record(PICTURE, 0, (0, 0, 0, 0), name, facts if rng.random() < 0.8 else mutate(facts, rng))]
        for _ in range(int(rng.integers(4))):
            box = [int(i) for i in rng.choice([0, 1, 8, 24, 32, 65536, 70000, -1], 4)]
            pixels = rng.integers(0, 256, (int(rng.integers(1, 40)), int(rng.integers(1, 40)), 3), dtype=np.uint8)
            if rng.random() < 0.6:
                box = [0, 0, pixels.shape[1], pixels.shape[0]]
            body = pack_pixels(pixels)
            if rng.random() < 0.3:  # a size of its own, with a fitting checksum: a bomb
                body = bomb(body, int(rng.choice([1, 60000, 2**31 - 1])))
                box = box if rng.random() < 0.5 else [0, 0, 60000, 60000]
            elif rng.random() < 0.5:
                body = mutate(body, rng)
            try:
                struct.pack(">4i", *box)
            except struct.error:
                continue
            records.append(Record(PORTRAIT, 0, tuple(box), name, body))
        records.append(Record(END, len(records), (0, 0, 0, 0), bytes(32), b"" if rng.random() < 0.9 else b"x"))
        locked = (lock_record(cipher, head, i, record) for i, record in enumerate(records))
        return head.pack() + b"".join(record.pack() for record in locked)

    def make(self, rng):
        "An input: broken, or whole and hostile."
        if rng.random() < 0.15:
            return self.hostile(rng)
        return mutate(self.corpus[int(rng.integers(len(self.corpus)))], rng)

    def ask(self, content):
        "How it was answered; AssertionError where an answer is wrong."
        if content.startswith(b"privnb1 "):
            return answer(lambda: self.ask_line(content))
        if content.startswith(b"\x89PNG"):
            try:
                content = from_png(content)
            except SealError as error:
                return type(error).__name__
        return answer(lambda: self.ask_seal(content))

    def ask_line(self, content):
        "A public key that is read must be ours."
        assert parse_public(content.decode("latin-1")) == self.key.public
        return "read"

    def ask_seal(self, content):
        "A seal that opens must show what was sealed, or be the hostile one's own."
        head, _ = read_seal(content)
        shown = list(open_frames(io.BytesIO(content), self.key))
        if head.system == "evil":
            for frame in shown:
                answer(lambda: restore(self.enhanced, frame, changed=True))
            return "opened, a stranger's own"
        for frame in shown:
            assert (restore(self.enhanced, frame).image == self.image).all()
        return "opened, unchanged"


def bomb(png, side):
    "The PNG with another width and height and a fitting checksum."
    from zlib import crc32

    head = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + head + crc32(head).to_bytes(4, "big") + png[33:]


class Keys(Container):
    "Files of private keys, without a passphrase and with a cheap one."

    def __init__(self):
        from privnb.keys import write_key

        rng = np.random.default_rng(7)
        self.key = PrivateKey("fuzz", rng.bytes(32), rng.bytes(32))
        with TemporaryDirectory() as folder:
            self.corpus = [write_key(self.key, folder, phrase, stem, cost=10).read_bytes()
                           for phrase, stem in ((None, "a"), ("x", "b"))]

    def make(self, rng):
        "A broken key file."
        return mutate(self.corpus[int(rng.integers(2))], rng)

    def ask(self, content):
        "A key that is read must be ours."
        def read():
            assert parse_key(content, "x") == self.key
            return "read"
        return answer(read)


class Files:
    "Readers that take a path; each answers with what it read or an ImageError."

    def __init__(self):
        import privnb.sources  # noqa: F401, all readers: what an import takes is not counted

        self.folder = TemporaryDirectory()

    def make(self, rng):
        "A broken file, with the ending that says what it is."
        ending, content = self.corpus[int(rng.integers(len(self.corpus)))]
        return ending.encode().ljust(8, b"\0") + mutate(content, rng)

    def ask(self, content):
        "How the reader answered."
        from privnb.images import ImageError

        path = Path(self.folder.name) / f"x{content[:8].rstrip(bytes(1)).decode()}"
        path.write_bytes(content[8:])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.read(path)
                return "read"
            except ImageError as error:
                assert "\n" not in str(error), "more than one line"
                return "ImageError"


class Pictures(Files):
    "Pictures in the formats that people have."

    def __init__(self):
        super().__init__()
        rng, self.corpus = np.random.default_rng(7), []
        picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        for ending, mode in ((".png", "RGB"), (".png", "P"), (".png", "I;16"), (".jpg", "RGB"), (".jpg", "CMYK"),
                             (".webp", "RGBA"), (".bmp", "RGB"), (".gif", "P"), (".tiff", "RGB")):
            made = picture.convert("L").point(lambda v: 257 * v, "I").convert("I;16") if mode == "I;16" \
                else picture.convert(mode)
            made.save(Path(self.folder.name) / f"whole{ending}", exif=b"Exif\0\0MM\0*\0\0\0\10\0\1\1\x12\0\3"
                      b"\0\0\0\1\0\6\0\0\0\0\0\0") if ending in (".jpg", ".webp") else \
                made.save(Path(self.folder.name) / f"whole{ending}")
            self.corpus.append((ending, (Path(self.folder.name) / f"whole{ending}").read_bytes()))

    def read(self, path):
        "Its pixels and its record."
        from privnb.images import load_image, read_metadata

        assert load_image(path).dtype == np.uint8
        read_metadata(path)


class Annotations(Files):
    "COCO files: bytes are broken, or single values exchanged for odd ones."

    ODD = (None, True, -1, 0, 1e308, float("nan"), 2**70, "", "x", [], {}, [[]], "1", -0.5, [1, 2, 3, "4"])

    def __init__(self):
        super().__init__()
        people = [{"id": i, "image_id": 1 + i % 2, "category_id": 1, "bbox": [1, 2, 20, 30], "area": 600, "iscrowd": 0,
                   "num_keypoints": 17, "keypoints": [5, 6, 2] * 17} for i in range(3)]
        images = [{"id": i, "file_name": f"{i}.jpg", "height": 48, "width": 64} for i in (1, 2)]
        self.content = {"images": images, "annotations": people,
                        "categories": [{"id": 1, "name": "person", "keypoints": ["a"] * 17}]}
        self.corpus = [(".json", json.dumps(self.content).encode())]

    def make(self, rng):
        "A broken file."
        if rng.random() < 0.3:
            return super().make(rng)
        return b".json".ljust(8, b"\0") + json.dumps(self.exchanged(self.content, rng)).encode()

    def exchanged(self, content, rng):
        "A copy in which up to three values, or whole branches, are odd ones."
        made = json.loads(json.dumps({"content": content}))
        for _ in range(int(rng.integers(1, 4))):
            place = made
            while True:
                keys = list(place) if isinstance(place, dict) else range(len(place))
                if not len(keys):
                    break
                key = keys[int(rng.integers(len(keys)))]
                if not isinstance(place[key], (dict, list)) or rng.random() < 0.2:
                    place[key] = copy.deepcopy(self.ODD[int(rng.integers(len(self.ODD)))])
                    break
                place = place[key]
        return made["content"]

    def read(self, path):
        "Raised, and gathered; and the labels of whatever is left."
        from privnb.datasets import CocoKeypoints

        read_all(lambda problems: CocoKeypoints(path, problems=problems))


def read_all(opened):
    "Faults gathered first, then the first one raised; the labels of each picture in between."
    data = opened([])
    for i in range(len(data)):
        data.labels(i, 48, 64)
        data.entries(i)
    opened(None)


class Mpii(Annotations):
    "MPII's people as the JSON files in use write them."

    def __init__(self):
        super().__init__()
        joints = [[5.0 + i, 6.0 + i] for i in range(16)]
        self.content = [{"image": "1.jpg", "joints": joints, "joints_vis": [1] * 16, "scale": 0.5, "center": [30.0, 20.0]},
                        {"img_paths": "2.jpg", "joint_self": [[5.0 + i, 6.0, 1.0] for i in range(16)], "scale_provided": 0.4,
                         "objpos": [30.0, 20.0], "isValidation": 1.0}]
        self.corpus = [(".json", json.dumps(self.content).encode())]

    def read(self, path):
        "Both splits."
        from privnb.mpii import MPII

        for split in ("train", "test"):
            read_all(lambda problems: MPII(path, split, problems))


class Matlab(Mpii):
    "MPII's release: structs in structs, plain and compressed."

    def __init__(self):
        from scipy.io import savemat

        Files.__init__(self)
        point = {"x": 5.0, "y": 6.0, "id": 3.0, "is_visible": "1"}
        person = {"x1": 3.0, "y1": 3.0, "x2": 9.0, "y2": 9.0, "scale": 0.4, "objpos": {"x": 9.0, "y": 9.0},
                  "annopoints": {"point": structs([point, {**point, "id": 4.0}])}}
        row = {"image": {"name": "1.jpg"}, "annorect": structs([person, person]), "vididx": 3.0}
        release = {"annolist": structs([row, row]), "img_train": np.array([1, 1])}
        self.corpus = []
        for compressed in (False, False, False, True):
            buffer = io.BytesIO()
            savemat(buffer, {"RELEASE": release}, do_compression=compressed)
            self.corpus.append((".mat", buffer.getvalue()))

    def make(self, rng):
        "A broken file."
        return Files.make(self, rng)


def structs(rows):
    "A 1 x N struct array of Matlab."
    made = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        for name, value in row.items():
            made[0, i][name] = value
    return made


class Yolo(Annotations):
    "A data set of ultralytics: one of its YAML, a list of pictures and a file of labels is broken."

    def __init__(self):
        import yaml

        super().__init__()
        self.content = {"path": "", "train": "images/train", "val": "list.txt", "kpt_shape": [17, 3], "names": {0: "person"},
                        "flip_idx": [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]}
        line = " ".join(["0", "0.5", "0.5", "0.4", "0.6"] + ["0.5", "0.5", "2"] * 17)
        self.files = {"x.yaml": yaml.safe_dump(self.content).encode(), "list.txt": b"images/train/a.png\nimages/train/b.png\n",
                      "labels/train/a.txt": f"{line}\n{line[:-1]}1\n".encode(), "labels/train/b.txt": b""}
        folder = Path(self.folder.name)
        for name in ("images/train", "labels/train"):
            (folder / name).mkdir(parents=True)
        for name in "ab":
            Image.new("RGB", (8, 8)).save(folder / f"images/train/{name}.png")
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        self.corpus = [(str(i), content) for i, content in enumerate(self.files.values())]

    def make(self, rng):
        "A broken file; its number says which."
        import yaml

        if rng.random() < 0.5:
            return Files.make(self, rng)
        odd = self.exchanged({**self.content, "names": ["person"]}, rng)
        return b"0".ljust(8, b"\0") + yaml.safe_dump(odd).encode()

    def ask(self, content):
        "How the reader answered, with this file in the place of the whole one."
        from privnb.images import ImageError
        from privnb.yolo import YoloPose

        folder, (name, whole) = Path(self.folder.name), list(self.files.items())[int(content[:8].rstrip(bytes(1)))]
        (folder / name).write_bytes(content[8:])
        try:
            for split in ("train", "test"):
                read_all(lambda problems: YoloPose(folder / "x.yaml", split, problems))
            return "read"
        except ImageError as error:
            assert "\n" not in str(error), "more than one line"
            return "ImageError"
        finally:
            (folder / name).write_bytes(whole)


TARGETS = {"container": Container, "keys": Keys, "picture": Pictures, "annotations": Annotations, "mpii": Mpii,
           "matlab": Matlab, "yolo": Yolo}


# the loop

def answer(action):
    "What it returned, or the class of its refusal."
    try:
        return action()
    except SealError as error:
        return type(error).__name__


class TooSlow(BaseException):
    "No Exception, so that no reader takes it for a fault of the file."


def peak_memory():
    "Most memory that this process has held, bytes."
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def time_limit(seconds):
    "TooSlow after so many seconds."
    def stop(*_):
        raise TooSlow(f"more than {seconds} s")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(target, count, seed, keep=None, progress=False):
    "Answers by kind, what was found (number -> what), the slowest input in seconds, peak memory in bytes."
    target, answers, found, slowest = TARGETS[target](), Counter(), {}, 0.0
    for number in range(count):
        content = target.make(np.random.default_rng([seed, number]))
        began, before = time.perf_counter(), peak_memory()
        try:
            with time_limit(LIMIT):
                answers[target.ask(content)] += 1
            if before <= MEMORY < peak_memory():
                found[number] = f"memory reached {peak_memory() >> 20} MiB"
        except (Exception, TooSlow) as error:  # whatever is no refusal is a finding
            found[number] = f"{type(error).__name__}: {error}"
        if number in found and keep:
            Path(keep).mkdir(parents=True, exist_ok=True)
            (Path(keep) / f"{seed}_{number}.bin").write_bytes(content)
        slowest = max(slowest, time.perf_counter() - began)
        if progress and number % 1000 == 999:
            print(f"\r{number + 1} of {count}, {len(found)} found", end="", file=sys.stderr, flush=True)
    return answers, found, slowest, peak_memory()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=TARGETS, default="container")
    parser.add_argument("--count", type=int, default=20_000, help="inputs (20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this input alone, without a net")
    parser.add_argument("--keep", metavar="DIR", help="write what was found there")
    args = parser.parse_args()
    if args.only is not None:
        target = TARGETS[args.target]()
        print(target.ask(target.make(np.random.default_rng([args.seed, args.only]))))
        return 0
    answers, found, slowest, memory = fuzz(args.target, args.count, args.seed, args.keep, progress=True)
    print(json.dumps({"target": args.target, "count": args.count, "seed": args.seed,
                      "answers": dict(answers.most_common()), "found": found,
                      "slowest, s": round(slowest, 3), "peak, MiB": memory >> 20}, indent=1))
    return int(bool(found) or memory > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
