"The log of recoveries: every tampering is named by its line, many writers share it, and no recovery goes without it."
import argparse
import json
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privnb import audit, authorised
from privnb.audit import LABEL, LONGEST, START, Entry, LogBroken, append, verify
from privnb.keys import SealError, new_key, write_key

ANNA, BORIS, EVE = (new_key(name) for name in ("Anna", "Boris", "Eve"))
RING = [ANNA.public, BORIS.public]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    "Eight lines of two people."
    path = tmp_path_factory.mktemp("log") / "audit.log"
    for number in range(8):
        append(path, (ANNA, BORIS)[number % 3 == 1], "recover", file=f"{number}.png", exact=number % 2 == 0)
    return path


def lines(log):
    return log.read_bytes().splitlines(keepends=True)


def written(tmp_path, parts):
    path = tmp_path / "changed.log"
    path.write_bytes(b"".join(parts))
    return path


def test_a_log_holds(log):
    verdict = verify(log, RING)
    assert verdict.whole and len(verdict.entries) == 8 and not verdict.strangers
    assert [entry.facts["number"] for entry in verdict.entries] == list(range(1, 9))
    assert verify(log, RING, head=verdict.entries[3].hash).whole


def test_every_flipped_bit_is_named_by_its_line(log, tmp_path):
    content, path = log.read_bytes(), tmp_path / "flipped.log"
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(content), 1500, replace=False).tolist():
        made = bytearray(content)
        made[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(made))
        assert verify(path).broken == content[:bit // 8].count(b"\n") + 1


@settings(max_examples=150, deadline=None)
@given(order=st.permutations(range(8)), length=st.integers(0, 8))
def test_lines_hold_in_their_order_only(log, tmp_path_factory, order, length):
    kept, parts = order[:length], lines(log)
    path = written(tmp_path_factory.mktemp("order"), [parts[i] for i in kept])
    right = next((n for n, i in enumerate(kept) if n != i), length)
    verdict = verify(path, RING)
    assert len(verdict.entries) == right and verdict.broken == (None if right == length else right + 1)


@pytest.mark.parametrize("left", range(8))
def test_a_shortened_log_is_noticed_by_a_noted_hash(log, tmp_path, left):
    noted = verify(log).head
    path = written(tmp_path, lines(log)[:left])
    assert verify(path, RING).whole
    verdict = verify(path, RING, head=noted)
    assert verdict.broken == left + 1 and "is missing" in verdict.why


def test_a_line_signed_anew_breaks_the_next(log, tmp_path):
    parts = lines(log)
    facts = {k: v for k, v in json.loads(parts[1]).items() if k != "signature"} | {"file": "harmless.png"}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    forged = Entry(facts, BORIS.signer.sign(LABEL + text.encode()).hex())
    verdict = verify(written(tmp_path, [parts[0], forged.line.encode() + b"\n", *parts[2:]]), RING)
    assert verdict.broken == 3 and "names another line before it" in verdict.why


def signed(signer, /, **facts):
    "A line that somebody with a key and bad intentions writes."
    told = {"number": 1, "time": "2027-01-01T00:00:00+00:00", "action": "recover", "key": signer.public.line,
            "before": START, **facts}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return Entry(told, signer.signer.sign(LABEL + text.encode()).hex())


@pytest.mark.parametrize("facts", [{"number": "1"}, {"number": True}, {"number": 1.0}, {"number": None},
                                   {"time": 5}, {"before": None}, {"key": 3}, {"key": []}, {"action": {}}])
def test_a_signed_line_of_other_types_is_refused(tmp_path, facts):
    path = written(tmp_path, [signed(ANNA, **facts).line.encode() + b"\n"])
    assert verify(path).broken == 1
    with pytest.raises(LogBroken, match="takes no further line"):
        append(path, ANNA, "recover")


def test_a_signature_has_one_way_to_be_written(tmp_path):
    entry = signed(ANNA)
    assert verify(written(tmp_path, [entry.line.encode() + b"\n"])).whole
    shouting = replace(entry, signature=entry.signature.upper())
    assert verify(written(tmp_path, [shouting.line.encode() + b"\n"])).broken == 1


def test_time_does_not_run_backwards(tmp_path):
    first = signed(ANNA)
    second = signed(ANNA, number=2, before=first.hash, time="2026-12-31T23:59:59+00:00")
    verdict = verify(written(tmp_path, [first.line.encode() + b"\n", second.line.encode() + b"\n"]))
    assert verdict.broken == 2 and "is dated before" in verdict.why


def test_a_clock_that_was_set_back_is_not_followed(tmp_path):
    path = written(tmp_path, [signed(ANNA, time="2999-01-01T00:00:00+00:00").line.encode() + b"\n"])
    assert append(path, ANNA, "recover").facts["time"] == "2999-01-01T00:00:00+00:00"
    assert verify(path).whole


def test_a_key_of_another_person_does_not_sign(tmp_path):
    entry = signed(EVE, key=ANNA.public.line)
    assert "signature" in verify(written(tmp_path, [entry.line.encode() + b"\n"])).why


def test_strangers_are_told(log, tmp_path):
    path = written(tmp_path, lines(log))
    append(path, EVE, "recover")
    verdict = verify(path, RING)
    assert verdict.whole and verdict.strangers == {EVE.public.fingerprint: "Eve"}
    assert verify(path).strangers == {}


@pytest.mark.parametrize("content", [b"\n", b"x\n", b"{}\n", b"null\n", b"[" * 9000 + b"\n", b"\xff\n",
                                     b"9" * (2 * LONGEST), b'{"signature":1}\n', b"\0" * 100])
def test_other_files_break_at_their_first_line_and_take_no_other(tmp_path, content):
    path = written(tmp_path, [content])
    assert verify(path).broken == 1
    with pytest.raises(LogBroken, match="takes no further line"):
        append(path, ANNA, "recover")
    assert path.read_bytes() == content


def test_an_empty_log_holds_and_a_missing_one_is_named(tmp_path):
    assert verify(written(tmp_path, [])).head == START
    with pytest.raises(SealError, match="missing.log: no such file"):
        verify(tmp_path / "missing.log")


def test_a_line_that_is_too_long_is_refused_and_not_written(tmp_path):
    append(tmp_path / "a.log", ANNA, "recover")
    with pytest.raises(SealError, match="allowed is a line of"):
        append(tmp_path / "a.log", ANNA, "recover", file="x" * LONGEST)
    assert len(verify(tmp_path / "a.log").entries) == 1


def test_long_lines_are_found_again(tmp_path):
    for _ in range(5):
        append(tmp_path / "a.log", ANNA, "recover", file="x" * (LONGEST - 700))
    assert len(verify(tmp_path / "a.log", RING).entries) == 5


def test_any_text_is_told_and_read_back(tmp_path):
    odd = ["\u00e4\u4e2d", "a\nb", '"', "\\", "\u2028", "\ud800", "\0"]
    for text in odd:
        append(tmp_path / "a.log", ANNA, "recover", file=text)
    verdict = verify(tmp_path / "a.log")
    assert verdict.whole and [entry.facts["file"] for entry in verdict.entries] == odd


def _write_ten(path, name):
    key = new_key(name)
    for number in range(10):
        append(path, key, "recover", file=f"{name}{number}")


def test_four_processes_share_a_log(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_ten, args=(tmp_path / "a.log", f"w{i}")) for i in range(4)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    verdict = verify(tmp_path / "a.log")
    assert verdict.whole and len({entry.facts["file"] for entry in verdict.entries}) == 40


# no recovery without its line

@pytest.fixture
def sealed_picture(tmp_path):
    "A folder with a sealed picture and Anna's key."
    original = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    enhanced = original.copy()
    enhanced[4:12, 4:12] = 0
    result = argparse.Namespace(image=enhanced, record={"squares": [[4, 4, 12, 12]], "filled": []})
    authorised.save_sealed(original, result, tmp_path / "a.png", [ANNA.public])
    write_key(ANNA, tmp_path, None)
    return tmp_path


def work_on(folder, log):
    return authorised.opener(argparse.Namespace(key=folder / "privnb.key", side=None, log=log, out=folder / "out",
                                                changed=False, overwrite=False))


def test_a_log_that_cannot_be_written_stops_the_recovery(sealed_picture):
    (sealed_picture / "file").write_bytes(b"")
    for log in (sealed_picture / "file" / "a.log", sealed_picture):
        with pytest.raises(SealError):
            work_on(sealed_picture, log)(sealed_picture / "a.png", sealed_picture / "out" / "a.png")
    broken = written(sealed_picture, [b"rubbish\n"])
    with pytest.raises(LogBroken):
        work_on(sealed_picture, broken)(sealed_picture / "a.png", sealed_picture / "out" / "a.png")
    assert not (sealed_picture / "out" / "a.png").exists()


def test_the_line_is_written_before_the_picture(sealed_picture, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")
    monkeypatch.setattr("privnb.images.save_image", full)
    log = sealed_picture / "a.log"
    with pytest.raises(OSError, match="no space"):
        work_on(sealed_picture, log)(sealed_picture / "a.png", sealed_picture / "out" / "a.png")
    (entry,) = verify(log, RING).entries
    assert entry.facts["action"] == "recover" and entry.facts["exact"] is True


def test_the_command_says_where_a_log_breaks(log, tmp_path, capsys):
    whole = argparse.ArgumentParser()
    authorised.add_audit(whole.add_subparsers())

    def run(*words):
        args = whole.parse_args(["audit", *map(str, words)])
        return args.run(args)

    assert run(log) == 0 and audit.verify(log).head in capsys.readouterr().out
    assert run(log, "--ring", ANNA.public.line) == 1
    assert "not on the ring: Boris" in capsys.readouterr().err
    assert run(written(tmp_path, lines(log)[1:])) == 1
    assert "line 1 is number 2; 1 was to follow" in capsys.readouterr().err
    assert run(written(tmp_path, lines(log)[:3]), "--head", audit.verify(log).head) == 1


def shown(path, *words):
    whole = argparse.ArgumentParser()
    authorised.add_audit(whole.add_subparsers())
    args = whole.parse_args(["audit", str(path), *words])
    return args.run(args)


def test_what_a_log_tells_stays_on_its_line(tmp_path, capsys):
    "Line breaks, escape sequences, marks of direction and bytes that are no text, in a file name and elsewhere."
    path = tmp_path / "log"
    forged = "a.png\n    2  2027-01-01T00:00:00+00:00  Boris 00000000  recover  file b.png"
    for name in (forged, "\x1b[2J\x1b[1A.png", "\u202egnp.a", "b\udcff.png", "a.png, exact True", "\x85\u2028"):
        append(path, ANNA, "recover", file=name, exact=False)
    append(path, replace(ANNA, name="Anna B"), "refuse\r")
    assert shown(path) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 8 and out.isascii() and set(out) - set("\n") <= set(map(chr, range(32, 127)))
    assert r'file "b\udcff.png"' in out and 'file "a.png, exact True"' in out and '"Anna B"' in out


def test_the_rings_name_is_shown_and_another_one_complained_about(tmp_path, capsys):
    path = tmp_path / "log"
    append(path, ANNA, "recover")
    append(path, replace(ANNA, name="Boris"), "recover")
    assert shown(path) == 0 and "Boris" in capsys.readouterr().out
    assert shown(path, "--ring", ANNA.public.line) == 1
    told = capsys.readouterr()
    assert told.out.count("Anna") == 2 and "Boris" not in told.out
    assert "line 2 gives the name Boris to the key of Anna" in told.err
