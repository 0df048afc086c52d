"""Time from a slider event to the new picture, 512 x 512, for both explorers.

    python benchmarks/widgets.py [--events 40] [--threads 2] [--json FILE]

Each event sets the slider as a front end does and waits until the picture's text and bytes are handed to the
browser; the transport and the browser's own drawing are not in it. `picture` is the first stage, `complete` the
answer with figures, and for the trade-off also with the recovered picture and the plane. The learned picture's
first stage holds the enhanced picture with the pose found on it. Goals on two quiet cores: p90 of at most 80 ms
for the guidance and of at most 250 ms for the learned picture. `drag` sends events every 16 ms without waiting
and counts what is computed.
"""
import argparse
import json
import time

import numpy as np
import torch

from privnb.guidance_explorer import GuidanceExplorer
from privnb.profiling import machine
from privnb.tradeoff_explorer import TradeoffExplorer

GOALS = {"guidance": 80, "learned": 250}


class Stopwatch:
    "Moments at which an explorer delivers a stage."

    def __init__(self, explorer):
        self.moments, deliver = [], explorer.worker.deliver

        def timed(answer):
            deliver(answer)
            self.moments.append(time.perf_counter())

        explorer.worker.deliver = timed


def settled(explorer):
    assert explorer.worker.settle(120) and explorer.worker.error is None, explorer.worker.error


def strengths(explorer, kinds, events):
    "Settings (kind, radius) all over the ranges that every system has, none twice in a row."
    ranges = {"blur": (2.0, 12.0), "pixelate": (4.0, 16.0)}
    draws = np.random.default_rng(0)
    for k in range(events):
        kind = kinds[k * len(kinds) // events]
        low, high = ranges[kind]
        radius = explorer.radius.value
        while radius == explorer.radius.value and kind == explorer.kind.value:
            radius = float(np.round(draws.uniform(low, high) * 2) / 2)
        yield kind, radius


def one_by_one(explorer, kinds, events):
    "Milliseconds from the event to the first and to the last stage, (events, 2)."
    watch, rows = Stopwatch(explorer), []
    for kind, radius in strengths(explorer, kinds, events):
        if explorer.kind.value != kind:
            explorer.kind.value = kind
            settled(explorer)
        if radius == explorer.radius.value:
            continue
        watch.moments.clear()
        start = time.perf_counter()
        explorer.radius.slider.value = radius
        settled(explorer)
        rows.append([1e3 * (watch.moments[0] - start), 1e3 * (watch.moments[-1] - start)])
    return np.array(rows)


def drag(explorer, events, gap=0.016):
    "Events, answers that were begun, and milliseconds from the last event to the complete picture."
    begun = explorer.worker.begun
    for value in np.linspace(4, 12, events):
        explorer.radius.slider.value = float(value)
        time.sleep(gap)
    released = time.perf_counter()
    settled(explorer)
    return {"events": events, "computed": explorer.worker.begun - begun,
            "settled_ms": round(1e3 * (time.perf_counter() - released), 1)}


def figures(rows):
    names = {"picture": rows[:, 0], "complete": rows[:, 1]}
    return {name: {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 90)}
            for name, values in names.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--picture", default="two people (rendered)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {**machine(args.threads), "picture": args.picture}
    for name, make in (("guidance", GuidanceExplorer), ("learned", TradeoffExplorer)):
        explorer = make(picture=args.picture)
        settled(explorer)
        one_by_one(explorer, ("pixelate", "blur"), 6)
        result[name] = figures(one_by_one(explorer, ("pixelate", "blur"), args.events))
        result[name]["drag"] = drag(explorer, args.events)
        result[name]["goal_p90"] = GOALS[name]
        result[name]["reached"] = result[name]["picture"]["p90"] <= GOALS[name]
    result["load_after"] = machine()["load"]
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
