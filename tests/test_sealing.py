"Keys, containers, locks and seals: round trips, flipped bits, mix-ups, hostile senders, broken files."
import argparse
import importlib.util
import io
import json
import os
import re
import struct
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from privnb import authorised
from privnb.container import (END, MOST_BODY, PICTURE, PORTRAIT, Head, NotASeal, Record, SealDamaged,
                              SealMissing, SealTruncated, SealVersion, from_png, into_png, read_head,
                              read_seal)
from privnb.images import ImageError, load_image, read_metadata, save_image
from privnb.keyring import Keyring, ask_passphrase, rewrap
from privnb.keys import (KeyDamaged, KeyExposed, PrivateKey, PublicKey, SealError, WrongPassphrase, new_key,
                         parse_key, parse_public, read_key, write_key, write_whole)
from privnb.locks import (NotARecipient, derived_key, lock_record, pack_pixels, picture_hash, sign_head,
                          unpack_pixels, wrap_key)
from privnb.sealing import (FACTS, MOST_PORTRAITS, PictureChanged, Sealer, WrongPicture, open_frames, places,
                            seal, unseal)

ROOT = Path(__file__).resolve().parent.parent
ANNA, BORIS, EVE = (new_key(name) for name in ("Anna", "Boris", "Eve"))


def fuzzer():
    "tools/fuzz.py as a module."
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "tools" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def protected(rng, height, width, people, filled):
    "A random picture, its enhanced twin and the record; boxes lie anywhere, some outside."
    original = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if rng.random() < 0.5:  # something that compresses
        original = np.kron(original[::4, ::4], np.ones((4, 4, 1), np.uint8))[:height, :width]
    low = rng.integers(-20, max(height, width), (people + filled, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 50, (people + filled, 2))], 1)
    boxes[:people, 2:] = low[:people] + rng.integers(1, 50, (people, 1))
    record = {"squares": boxes[:people].tolist(), "filled": boxes[people:].tolist(), "system": "0f" * 8}
    enhanced = original.copy()
    for x0, y0, x1, y1 in places(record, original.shape):
        enhanced[y0:y1, x0:x1] = rng.integers(0, 256, 3, dtype=np.uint8)
    return original, enhanced, record


SMALL = protected(np.random.default_rng(3), 40, 48, 3, 1)
SEALED = seal(*SMALL, [ANNA.public, BORIS.public])


# round trips

@pytest.mark.parametrize("block", range(4))
def test_two_hundred_random_pictures_come_back_bit_for_bit(block):
    for number in range(50 * block, 50 * block + 50):
        rng = np.random.default_rng([11, number])
        height, width = rng.integers(1, 120, 2).tolist()
        original, enhanced, record = protected(rng, height, width, *rng.integers(0, 5, 2).tolist())
        recipients = [ANNA, BORIS, EVE][:int(rng.integers(1, 4))]
        sealed = seal(original, enhanced, record, [key.public for key in recipients])
        for key in recipients:
            found = unseal(enhanced, sealed, key)
            assert found.exact and not found.notice and (found.image == original).all()
            for (x0, y0, x1, y1), pixels in found.portraits:
                assert (pixels == original[y0:y1, x0:x1]).all()
        assert len(found.portraits) == len(places(record, original.shape))


def test_the_input_is_left_as_it_was():
    original, enhanced, record = SMALL
    kept = enhanced.copy()
    unseal(enhanced, SEALED, ANNA).image[:] = 0
    assert (enhanced == kept).all()
    frozen = enhanced.copy()
    frozen.flags.writeable = False
    assert unseal(frozen, SEALED, ANNA).exact


def test_a_view_of_another_layout_seals_the_same():
    original, enhanced, record = SMALL
    turned = [np.asfortranarray(original), enhanced[:, ::-1][:, ::-1]]
    assert picture_hash(turned[1]) == picture_hash(enhanced)
    assert (unseal(enhanced, seal(*turned, record, [ANNA.public]), ANNA).image == original).all()


def test_pixels_outside_the_boxes_must_agree():
    original, enhanced, record = SMALL
    other = original.copy()
    mask = np.ones(original.shape[:2], bool)
    for x0, y0, x1, y1 in places(record, original.shape):
        mask[y0:y1, x0:x1] = False
    other[tuple(np.argwhere(mask)[0])] ^= 1
    with pytest.raises(ValueError, match="outside the boxes"):
        seal(other, enhanced, record, [ANNA.public])


@pytest.mark.parametrize("recipients", [[], [new_key(str(i)).public for i in range(65)]])
def test_recipients_are_1_to_64(recipients):
    with pytest.raises(ValueError, match="recipients: (0|65); allowed are 1 to 64"):
        seal(*SMALL, recipients)


def test_a_recipient_named_twice_gets_one_slot():
    assert len(read_seal(seal(*SMALL, [ANNA.public, ANNA.public]))[0].slots) == 1


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8),
                                   np.zeros((4, 4, 4), np.uint8)])
def test_other_arrays_have_no_name(image):
    with pytest.raises(ValueError, match="image: "):
        picture_hash(image)


def test_too_many_boxes_are_refused_before_sealing():
    original, _, record = SMALL
    crowd = {"squares": [[0, 0, 1, 1]] * (MOST_PORTRAITS + 1), "filled": []}
    with pytest.raises(ValueError, match="record: 1025 boxes"):
        seal(original, original, crowd, [ANNA.public])


# flipped bits: 10,000 of them, spread over side file, picture and key

def flipped(content, bit):
    made = bytearray(content)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


def bits(content, count, seed):
    "Some of its bits, each once, or all of them."
    rng = np.random.default_rng(seed)
    return rng.choice(8 * len(content), min(count, 8 * len(content)), replace=False).tolist()


def test_4000_flips_of_the_side_file_are_refused():
    for bit in bits(SEALED, 4000, 1):
        with pytest.raises(SealError):
            unseal(SMALL[1], flipped(SEALED, bit), ANNA)


def test_2000_flips_of_pixels_are_refused_and_told_when_accepted():
    original, enhanced, record = SMALL
    for n, bit in enumerate(bits(enhanced.tobytes(), 2000, 2)):
        spoilt = np.frombuffer(flipped(enhanced.tobytes(), bit), np.uint8).reshape(enhanced.shape)
        with pytest.raises(PictureChanged, match="was changed since it was sealed"):
            unseal(spoilt, SEALED, ANNA)
        if n % 20 == 0:
            found = unseal(spoilt, SEALED, ANNA, changed=True)
            assert not found.exact and "not exact: the picture was changed" in found.notice


def test_1500_flips_of_the_picture_file_never_give_a_wrong_picture(tmp_path):
    original, enhanced, record = SMALL
    file = save_image(enhanced, tmp_path / "a.png", metadata=record)
    whole, harmless = into_png(file.read_bytes(), SEALED), 0
    for bit in bits(whole, 1500, 3):
        file.write_bytes(flipped(whole, bit))
        try:
            found = unseal(load_image(file), from_png(file.read_bytes()), ANNA)
        except (SealError, ImageError):
            continue
        harmless += 1  # a bit that stands for no pixel, such as one of the record's text
        assert found.exact and (found.image == original).all()
    assert harmless < 1500


@pytest.mark.parametrize("passphrase", [None, "three random words"])
def test_2500_flips_of_the_key_are_refused(tmp_path, passphrase):
    content = write_key(ANNA, tmp_path, passphrase, cost=10).read_bytes()
    assert parse_key(content, passphrase) == ANNA
    for bit in bits(content, 1000, 4):
        with pytest.raises(SealError):
            parse_key(flipped(content, bit), passphrase)
    line = (tmp_path / "privnb.pub").read_bytes().strip()
    for bit in bits(line, 250, 5):
        with pytest.raises(KeyDamaged):
            parse_public(flipped(line, bit).decode("latin-1"))


def test_every_flip_of_the_secrets_themselves_is_another_key():
    "512 flips; the five bits that X25519 ignores (RFC 7748) are no part of the key."
    same = []
    for bit in range(512):
        secret = flipped(ANNA.opens + ANNA.signs, bit)
        key = PrivateKey("Anna", secret[:32], secret[32:])
        if key.public == ANNA.public:
            same.append(bit)
            continue
        with pytest.raises(NotARecipient):
            unseal(SMALL[1], SEALED, key)
    assert same == [0, 1, 2, 254, 255]


# mix-ups, each in its own words

def test_a_stranger_is_refused():
    with pytest.raises(NotARecipient, match="not sealed for this key"):
        unseal(SMALL[1], SEALED, EVE)


def test_every_truncation_is_refused():
    for length in range(len(SEALED)):
        with pytest.raises(SealTruncated, match="ends in its"):
            unseal(SMALL[1], SEALED[:length], ANNA)


def test_another_pictures_seal_is_refused_even_when_changes_are_accepted():
    rng = np.random.default_rng(5)
    other = [np.full((40, 48, 3), 250, np.uint8) for _ in range(2)]
    for x0, y0, x1, y1 in places(SMALL[2], other[0].shape):
        other[1][y0:y1, x0:x1] = 255
    theirs = seal(*other, SMALL[2], [ANNA.public])
    dark = (SMALL[1] // 8 + rng.integers(0, 8, SMALL[1].shape)).astype(np.uint8)
    for changed in (False, True):
        with pytest.raises(WrongPicture, match="belongs to another picture"):
            unseal(dark, theirs, ANNA, changed=changed)
    with pytest.raises(WrongPicture, match="another picture"):
        unseal(other[1][:, :20].copy(), theirs, ANNA, changed=True)


def test_a_missing_seal_names_where_it_was_looked_for(tmp_path):
    picture = save_image(SMALL[1], tmp_path / "a.png")
    with pytest.raises(SealMissing, match=r"a\.png: no seal, neither in the picture nor as a\.seal"):
        authorised.find_seal(picture)
    with pytest.raises(SealMissing, match=r"nor as b\.seal"):
        authorised.find_seal(picture, tmp_path / "b.seal")


@pytest.mark.parametrize("content, refusal", [
    (b"", SealTruncated), (b"\xff\xd8\xff\xe0" + bytes(200), NotASeal), (b"PK\3\4" + bytes(200), NotASeal),
    (SEALED[:8] + b"\2" + SEALED[9:], SealVersion), (SEALED + b"\0", SealDamaged), (SEALED + SEALED, SealDamaged)])
def test_other_files_are_refused(content, refusal):
    with pytest.raises(refusal):
        unseal(SMALL[1], content, ANNA)


def test_the_refusals_are_told_apart():
    kinds = [NotARecipient, SealMissing, SealTruncated, WrongPicture, PictureChanged, SealDamaged, NotASeal,
             SealVersion, KeyDamaged, WrongPassphrase, KeyExposed]
    assert all(issubclass(kind, SealError) for kind in kinds)
    assert not any(issubclass(a, b) for a in kinds for b in kinds if a is not b)


# a picture that was changed

@pytest.mark.parametrize("scale", [0.5, 0.77, 1.0, 1.6])
def test_portraits_go_into_a_resized_picture(scale):
    rng = np.random.default_rng(9)
    original = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120)))
    record, enhanced = {"squares": [[20, 20, 84, 84], [60, 30, 124, 94]], "filled": []}, original.copy()
    for x0, y0, x1, y1 in record["squares"]:
        enhanced[y0:y1, x0:x1] = enhanced[y0:y1, x0:x1].mean((0, 1))
    sealed = seal(original, enhanced, record, [ANNA.public])
    size = (round(160 * scale), round(120 * scale))
    buffer = io.BytesIO()
    Image.fromarray(enhanced).resize(size).save(buffer, "JPEG", quality=90)
    found = unseal(np.asarray(Image.open(buffer)), sealed, ANNA, changed=True)
    wanted = np.asarray(Image.fromarray(original).resize(size, Image.Resampling.LANCZOS)).astype(float)
    assert found.image.shape == wanted.shape and not found.exact
    inside = np.s_[round(22 * scale):round(82 * scale), round(22 * scale):round(122 * scale)]
    assert np.abs(found.image[inside] - wanted[inside]).mean() < 6
    for (x0, y0, x1, y1), pixels in found.portraits:
        assert (pixels == original[y0:y1, x0:x1]).all()


# whoever seals may mean harm: everything fits cryptographically, and the content is wrong

def hostile(records, key=ANNA):
    "A seal with these plain records, properly locked."
    content_key, head = os.urandom(32), Head(os.urandom(16), "")
    slots = (wrap_key(content_key, head.fixed, key.public),)
    head = sign_head(replace(head, slots=slots), content_key)
    cipher = AESGCM(derived_key(content_key, head.fixed, b"records"))
    ended = [*records, Record(END, len(records), (0, 0, 0, 0), bytes(32), b"")]
    return head.pack() + b"".join(lock_record(cipher, head, i, r).pack() for i, r in enumerate(ended))


NAME = picture_hash(SMALL[1])
FACTS_OF = FACTS.pack(40, 48, picture_hash(SMALL[0]), bytes(768))
OPENING = Record(PICTURE, 0, (0, 0, 0, 0), NAME, FACTS_OF)


def portrait(box, body):
    return Record(PORTRAIT, 0, box, NAME, body)


def resized(png, width, height):
    "The PNG with another size in its header, checksum included."
    head = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + head + zlib.crc32(head).to_bytes(4, "big") + png[33:]


PIXELS = pack_pixels(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("records", [
    [OPENING, portrait((0, 0, 9, 8), PIXELS)],  # a box of another size
    [OPENING, portrait((44, 0, 52, 8), PIXELS)],  # outside the picture
    [OPENING, portrait((0, 0, 8, 8), PIXELS[:-20])],  # cut inside
    [OPENING, portrait((0, 0, 8, 8), b"")],
    [OPENING, portrait((0, 0, 8, 8), PIXELS.replace(b"IDAT", b"JDAT"))],
    [replace(OPENING, body=FACTS_OF[:-1])],
    [replace(OPENING, body=FACTS.pack(60000, 60000, bytes(32), bytes(768))),  # found by tools/fuzz.py
     portrait((0, 0, 60000, 60000), resized(PIXELS, 60000, 60000))],
    [OPENING, portrait((0, 0, 8, 8), resized(PIXELS, 2**31 - 1, 2**31 - 1))],  # found by tools/fuzz.py
    [OPENING] + [portrait((0, 0, 1, 1), pack_pixels(np.zeros((1, 1, 3), np.uint8)))] * (MOST_PORTRAITS + 1),
])
def test_hostile_portraits_are_refused(records):
    with pytest.raises(SealDamaged):
        unseal(SMALL[1], hostile(records), ANNA)


def test_portraits_that_do_not_give_the_original_back_are_refused():
    with pytest.raises(SealDamaged, match="do not give the original back"):
        unseal(SMALL[1], hostile([OPENING, portrait((0, 0, 8, 8), PIXELS)]), ANNA)


def test_a_clip_is_no_seal_of_a_picture():
    stream = io.BytesIO()
    sealer = Sealer(stream, [ANNA.public])
    for number in (4, 9):
        sealer.add(*SMALL, frame=number)
    sealer.close()
    with pytest.raises(WrongPicture, match="clip of several frames"):
        unseal(SMALL[1], stream.getvalue(), ANNA)
    stream.seek(0)
    assert [frame.number for frame in open_frames(stream, ANNA)] == [4, 9]


def test_frames_cannot_change_places():
    stream = io.BytesIO()
    sealer = Sealer(stream, [ANNA.public])
    for number in range(2):
        sealer.add(*SMALL, frame=number)
    sealer.close()
    head, records = read_seal(stream.getvalue())
    half = len(records) // 2
    exchanged = [replace(b, frame=a.frame) for a, b in zip(records, records[half:-1] + records[:half])]
    content = head.pack() + b"".join(r.pack() for r in [*exchanged, records[-1]])
    assert len(read_seal(content)[1]) == len(records)  # the container does not mind
    with pytest.raises(SealDamaged, match="record 0 was changed"):
        list(open_frames(io.BytesIO(content), ANNA))


def test_the_inside_of_a_portrait_is_decoded_as_png_only():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", lossless=True)
    with pytest.raises(SealDamaged, match="no PNG of 8 x 8"):
        unpack_pixels(buffer.getvalue(), 8, 8)


# the container's reader

def test_20000_broken_containers_are_answered():
    fuzz = fuzzer()
    answers, found, slowest, memory = fuzz.fuzz("container", 20_000, seed=1)
    assert found == {} and sum(answers.values()) == 20_000
    assert slowest < fuzz.LIMIT
    assert len(answers) > 6


def test_2000_broken_key_files_are_answered():
    answers, found, _, _ = fuzzer().fuzz("keys", 2000, seed=1)
    assert found == {}


def test_the_fuzzer_finds_what_is_wrong(monkeypatch):
    "A reader that lets one kind of error through is found."
    fuzz = fuzzer()
    monkeypatch.setattr(fuzz, "read_seal", lambda content: {}[len(content)])
    found = fuzz.fuzz("container", 50, seed=1)[1]
    assert found and all(what.startswith("KeyError") for what in found.values())


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=300), keep=st.integers(0, 200))
def test_any_bytes_behind_a_good_beginning_are_answered(content, keep):
    with pytest.raises(SealError):
        read_seal(SEALED[:min(keep, 57)] + content)


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, 2**32 - 1))
def test_declared_lengths_take_no_memory(length):
    head = len(read_seal(SEALED)[0].pack())
    place = head + 57  # where the first record states its length
    content = SEALED[:place] + length.to_bytes(4, "big") + SEALED[place + 4:]
    if content == SEALED:
        return
    with pytest.raises((SealDamaged, SealTruncated)) as refusal:
        read_seal(content)
    assert (length > MOST_BODY or length < 28) <= (refusal.type is SealDamaged)


def test_a_system_is_text_in_one_way_only():
    content = bytearray(SEALED)
    content[25 + 20] = ord("x")  # behind the zeros that end the name
    with pytest.raises(SealDamaged, match="its system is no text"):
        read_head(io.BytesIO(bytes(content)))
    for system in ("\u00e4", "x" * 33, "a\0", "a\n"):
        with pytest.raises(ValueError, match="system: "):
            seal(SMALL[0], SMALL[1], {**SMALL[2], "system": system}, [ANNA.public])


# PNG

def png_of(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_a_chunk_survives_beside_others():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 5000)
    png = into_png(png_of(SMALL[1], pnginfo=info), SEALED)
    assert from_png(png) == SEALED
    with Image.open(io.BytesIO(png)) as picture:
        assert (np.asarray(picture) == SMALL[1]).all() and picture.text["comment"] == "x" * 5000


def test_two_chunks_a_wrong_checksum_and_a_cut_are_told_apart():
    png = into_png(png_of(SMALL[1]), SEALED)
    at = png.index(b"seAL") - 4
    chunk = png[at:at + 12 + len(SEALED)]
    with pytest.raises(SealDamaged, match="more than one seal"):
        from_png(png[:at] + chunk + png[at:])
    with pytest.raises(SealDamaged, match="checksum does not fit"):
        from_png(flipped(png, 8 * (at + 100)))
    with pytest.raises(SealTruncated, match="PNG file ends"):
        from_png(png[:-6])
    with pytest.raises(NotASeal, match="not a PNG"):
        from_png(b"GIF89a" + bytes(90))


# keys

def test_a_key_file_is_written_in_one_way_only(tmp_path):
    content = write_key(ANNA, tmp_path, "x", cost=10).read_bytes()
    body = json.loads(content)
    others = [json.dumps(body).encode(), content + b"\n", content.replace(b"\n", b"\r\n"),
              content.replace(b'"r": 8', b'"r": 8.0'), content.replace(b"{", b'{"kind": 1,', 1),
              content.upper(), b"[" * 3000, b"null", b"", b"\xff" * 50]
    for other in others:
        with pytest.raises(KeyDamaged):
            parse_key(other, "x")


def test_scrypt_is_not_asked_for_more_than_allowed(tmp_path):
    from privnb.keys import _body, _written

    content = write_key(ANNA, tmp_path, "x", cost=10).read_bytes()
    for cost in (0, 9, 19, 40, -1, 2**70):
        body = _body(content)
        body["kdf"] = {**body["kdf"], "cost": cost}
        with pytest.raises(KeyDamaged):
            parse_key(_written(body), "x")


def test_passphrases_are_compared_as_they_look(tmp_path):
    path = write_key(ANNA, tmp_path, "caf\u00e9", cost=10)
    assert read_key(path, "cafe\u0301") == ANNA
    with pytest.raises(WrongPassphrase, match="does not open"):
        read_key(path, "cafe")


def test_the_passphrase_is_asked_for_only_where_needed(tmp_path, monkeypatch):
    def refuse():
        raise AssertionError("asked")
    assert read_key(write_key(ANNA, tmp_path, None), refuse) == ANNA
    monkeypatch.setenv("PRIVNB_PASSPHRASE", "")
    with pytest.raises(WrongPassphrase, match="is empty"):
        ask_passphrase()
    monkeypatch.delenv("PRIVNB_PASSPHRASE")
    monkeypatch.setattr("sys.stdin", io.StringIO("words\n"))
    with pytest.raises(WrongPassphrase, match="no terminal"):
        ask_passphrase()


def test_a_new_passphrase_is_asked_for_twice(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("PRIVNB_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin", Terminal())
    for typed, outcome in ((["a", "a"], "a"), (["a", "b"], None)):
        answers = iter(typed)
        monkeypatch.setattr("privnb.keyring.getpass", lambda prompt: next(answers))
        if outcome:
            assert ask_passphrase(again=True) == outcome
        else:
            with pytest.raises(WrongPassphrase, match="differ"):
                ask_passphrase(again=True)


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "\u00e4", "x" * 65])
def test_names_fit_on_their_line(name):
    with pytest.raises(ValueError, match="name: "):
        new_key(name)


@pytest.mark.skipif(os.name != "posix", reason="rights of files")
def test_private_files_are_closed_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        path = write_key(ANNA, tmp_path, None)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_suffix(".pub").stat().st_mode & 0o777 == 0o666
    path.chmod(0o640)
    with pytest.raises(KeyExposed, match="chmod 600"):
        read_key(path)


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SealError, match="file"):
        write_whole(tmp_path / "file" / "below", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SealError):
        write_whole(tmp_path / "folder", b"x", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_an_impossible_public_key_is_refused():
    "A point of small order: everybody would know the secret."
    with pytest.raises(SealError, match="nothing can be sealed for this key"):
        seal(*SMALL, [PublicKey("null", bytes(32), bytes(32))])


# recipients

@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=8))
def test_recipients_come_and_go(steps):
    "Whatever is added and removed, exactly those on the list open, and the records stay."
    people = [ANNA, BORIS, EVE, CARLA]
    sealed, inside = SEALED, [ANNA, BORIS]
    for add, who in steps:
        key = people[who]
        if add:
            sealed = rewrap(sealed, inside[0], add=[key.public])
            inside = inside if key in inside else [*inside, key]
        elif key in inside and len(inside) > 1:
            sealed = rewrap(sealed, inside[0], remove=[key.public.fingerprint])
            inside = [other for other in inside if other is not key]
        else:
            with pytest.raises(SealError):
                rewrap(sealed, inside[0], remove=[key.public.fingerprint])
    assert read_seal(sealed)[1] == read_seal(SEALED)[1]
    for key in people:
        if key in inside:
            assert unseal(SMALL[1], sealed, key).exact
        else:
            with pytest.raises(NotARecipient):
                unseal(SMALL[1], sealed, key)


CARLA = new_key("Carla")


def test_rewrapped_flips_are_refused_too():
    sealed = rewrap(SEALED, ANNA, add=[CARLA.public], remove=[ANNA.public.fingerprint])
    for bit in range(8 * len(read_seal(sealed)[0].pack())):
        with pytest.raises(SealError):
            unseal(SMALL[1], flipped(sealed, bit), CARLA)


def test_the_ring_reads_files_folders_and_lines(tmp_path):
    write_key(ANNA, tmp_path / "a", None, stem="anna")
    write_key(BORIS, tmp_path / "a", None, stem="boris")
    ring = Keyring.read([tmp_path / "a" / "anna.pub", tmp_path / "a", CARLA.public.line])
    assert [key.name for key in ring] == ["Anna", "Boris", "Carla"] and EVE.public.fingerprint not in ring
    with pytest.raises(SealError, match="no public key"):
        Keyring.read([tmp_path])
    with pytest.raises(SealError, match="no such file"):
        Keyring.read([tmp_path / "missing.pub"])
    with pytest.raises(SealError, match="have this name"):
        Keyring([new_key("x").public, new_key("x").public]).find("x")


# commands

def run(*words):
    whole = argparse.ArgumentParser()
    commands = whole.add_subparsers(dest="command", required=True)
    authorised.add_keys(commands)
    authorised.add_audit(commands)
    args = whole.parse_args([str(word) for word in words])
    return args.run(args)


class Result:
    image, record = SMALL[1], SMALL[2]


@pytest.mark.parametrize("where", ["side", "png"])
def test_commands_seal_rotate_and_recover(tmp_path, where, capsys):
    for name in ("anna", "boris"):
        assert run("keys", "new", "--out", tmp_path, "--name", name, "--no-passphrase") == 0
    assert run("keys", "new", "--out", tmp_path / "other", "--name", "anna", "--no-passphrase") == 0
    target = tmp_path / "out" / "a.png"
    ring = Keyring.read([tmp_path / "anna.pub"])
    holder = authorised.save_sealed(SMALL[0], Result, target, ring, where)
    assert holder == (target if where == "png" else target.with_suffix(".seal"))
    assert read_metadata(target)["squares"] == SMALL[2]["squares"] and "sealed" in read_metadata(target)
    assert run("keys", "recipients", "add", "--key", tmp_path / "anna.key", "--who", tmp_path / "boris.pub",
               holder) == 0
    assert run("keys", "rotate", "--key", tmp_path / "anna.key", "--to", tmp_path / "other" / "anna.pub",
               tmp_path / "out") == 0
    given = dict(side=None, log=None, out=tmp_path / "back", changed=False, overwrite=True)
    for key, opens in ((tmp_path / "anna.key", False), (tmp_path / "boris.key", True),
                       (tmp_path / "other" / "anna.key", True)):
        work = authorised.opener(argparse.Namespace(key=key, **given))
        if opens:
            assert "exact in every bit" in work(target, tmp_path / "back" / "a.png")
            assert (load_image(tmp_path / "back" / "a.png") == SMALL[0]).all()
        else:
            with pytest.raises(NotARecipient):
                work(target, tmp_path / "back" / "a.png")
            assert not (tmp_path / "back" / "a.png").exists()
    assert run("audit", tmp_path / "back" / "audit.log") == 0
    assert run("keys", "show", holder, tmp_path / "missing") == 1
    shown = capsys.readouterr()
    assert "refuse" in shown.out and "why NotARecipient" in shown.out and "missing: no such file" in shown.err


def test_a_folder_is_changed_whole_or_something_is_said(tmp_path, capsys):
    write_key(ANNA, tmp_path, None, "anna")
    write_key(CARLA, tmp_path, None, "carla")
    change = ("keys", "rotate", "--key", tmp_path / "anna.key", "--to", tmp_path / "carla.pub")
    target, out = tmp_path / "out" / "a.png", tmp_path / "out"
    authorised.save_sealed(SMALL[0], Result, out / "b.png", [ANNA.public], "png")
    (out / "b.png").replace(out / "B.PNG")
    (out / "A.SEAL").write_bytes(SEALED)
    save_image(SMALL[1], out / "plain.png")
    with pytest.raises(SealError, match="no sealed file in this folder .*subfolders"):
        run(*change, tmp_path)
    capsys.readouterr()
    assert run(*change, out) == 0
    assert capsys.readouterr().out.count("sealed for") == 2
    for holder in (out / "B.PNG", out / "A.SEAL"):
        assert unseal(SMALL[1], authorised._seal_in(holder), CARLA).exact
    authorised.save_sealed(SMALL[0], Result, target, [ANNA.public], "png")
    content = bytearray(target.read_bytes())
    content[-40] ^= 1  # in the chunk of the seal
    target.write_bytes(content)
    assert run("keys", "rotate", "--key", tmp_path / "carla.key", "--to", tmp_path / "anna.pub", out) == 1
    assert "a.png: the sealed chunk of the picture is damaged" in capsys.readouterr().err


def test_existing_files_are_kept(tmp_path):
    target = tmp_path / "a.png"
    authorised.save_sealed(SMALL[0], Result, target, [ANNA.public])
    before = target.read_bytes(), (tmp_path / "a.seal").read_bytes()
    for where in ("side", "png"):
        with pytest.raises(SealError, match="is kept"):
            authorised.save_sealed(SMALL[0], Result, target, [ANNA.public], where)
    assert before == (target.read_bytes(), (tmp_path / "a.seal").read_bytes())
    with pytest.raises(ValueError, match="allowed is side or png"):
        authorised.save_sealed(SMALL[0], Result, tmp_path / "a.jpg", [ANNA.public])


def test_two_writers_never_share_a_temporary_file(tmp_path):
    contents = [bytes([i]) * 200_000 for i in range(8)]
    threads = [threading.Thread(target=write_whole, args=(tmp_path / "x", c), kwargs={"overwrite": True})
               for c in contents]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (tmp_path / "x").read_bytes() in contents and len(list(tmp_path.iterdir())) == 1


# metadata

MARKS = (b"SECRET-EXIF", b"SECRET-XMP", b"SECRET-COMMENT", b"SECRET-ICC", b"SECRET-TEXT", b"SECRET-GPS")


def marked_photographs(folder, pixels):
    "A JPEG and a PNG that carry camera, place, comments and a profile."
    exif = Image.Exif()
    exif[271], exif[270] = "SECRET-EXIF", "SECRET-EXIF"
    exif.get_ifd(0x8825)[29] = "SECRET-GPS"
    profile = b"\0" * 36 + b"acsp" + b"\0" * 88 + b"SECRET-ICC"
    picture = Image.fromarray(pixels)
    picture.save(folder / "a.jpg", exif=exif, comment=b"SECRET-COMMENT", xmp=b"<x>SECRET-XMP</x>",
                 icc_profile=profile)
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "SECRET-TEXT")
    picture.save(folder / "b.png", exif=exif, pnginfo=info)
    return folder / "a.jpg", folder / "b.png"


def test_metadata_of_the_photograph_stay_behind(tmp_path):
    found = set()
    for path in marked_photographs(tmp_path, SMALL[0]):
        found |= {mark for mark in MARKS if mark in path.read_bytes()}
        original = load_image(path)
        enhanced = original.copy()
        enhanced[4:20, 4:20] = 90
        result = argparse.Namespace(image=enhanced, record={"squares": [[4, 4, 20, 20]], "filled": []})
        for where in ("side", "png"):
            out = tmp_path / where / f"{path.stem}.png"
            authorised.save_sealed(original, result, out, [ANNA.public], where)
            save_image(unseal(enhanced, authorised.find_seal(out), ANNA).image, tmp_path / where / "back.png",
                       overwrite=True)
            save_image(enhanced, tmp_path / where / "plain.jpg", overwrite=True)
            for file in (tmp_path / where).iterdir():
                assert not [mark for mark in (*MARKS, b"Exif", b"SECRET") if mark in file.read_bytes()], file
    assert found == set(MARKS)  # the photographs really carried them


# SECURITY.md states what was measured

def test_security_states_measured_figures():
    text = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    rows = json.loads((ROOT / "nbs" / "results" / "storage.json").read_text())["rows"]
    kept = next(row for row in rows if row["system"] == "continuous")
    left = {name: f"{value:.1f} dB" for name, value in kept["psnr_or"].items()}
    assert f"reads {left['8-bit PNG']} from the 8-bit PNG, {left['JPEG 95']} from a JPEG of quality 95, " \
           f"{left['JPEG 85']} at 85 and {left['JPEG 75']} at 75" in text
    assert f"the enhanced picture itself lies at {kept['figures']['psnr_op']:.1f} dB" in text
    notebook = (ROOT / "nbs" / "16c_sealing.ipynb").read_text(encoding="utf-8")
    trained, never = re.search(r"trained ([\d.]+) dB, never trained ([\d.]+) dB", notebook).groups()
    assert f"reads {never} dB inside the squares where the trained one reads {trained} dB" in text


def test_links_of_security_exist():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert links and [link for link in links if not (ROOT / link).exists()] == []
