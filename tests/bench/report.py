"""Tables of what was measured. Pure: turns go in, Markdown comes out.

`results` maps the contenders of a scenario to the figures of their turns, in the order of the
rounds. A ratio is that of medians; below 1 Sluice needs less.
"""

import statistics

from scenarios import PEERS


def number(value, digits):
    return f"{value:,.{digits}f}"


def median(results, name, key):
    """None when `name` was not measured or does not have the figure."""
    values = [turn[key] for turn in results.get(name, []) if key in turn]
    return statistics.median(values) if values else None


def best_peer(results, key):
    """Name and median of the peer with the least; (None, None) when there is none."""
    found = [(median(results, name, key), name) for name in PEERS]
    found = [(value, name) for value, name in found if value is not None]
    value, name = min(found, default=(None, None))
    return name, value


def ratio(results, name, key, ours="sluice"):
    """Text: the ratio of medians, and the lowest and highest of one round; empty without either."""
    our_turns = [turn[key] for turn in results.get(ours, []) if key in turn]
    their_turns = [turn[key] for turn in results.get(name, []) if key in turn]
    if not our_turns or not their_turns or name == ours or min(their_turns) <= 0:
        return ""
    pairs = [a / b for a, b in zip(our_turns, their_turns)]
    whole = statistics.median(our_turns) / statistics.median(their_turns)
    return f"{whole:.2f} ({min(pairs):.2f} to {max(pairs):.2f})"


def cell(results, name, figure):
    value = median(results, name, figure.key)
    return "" if value is None else number(value, figure.digits)


def table(scenario, results):
    """Medians of one scenario; behind the headline figure its lowest and highest and the ratio of
    Sluice's to it."""
    head, *compared = scenario.headlines
    columns = [*compared, *scenario.others]
    ours = "2 workers" if scenario.name == "workers2" else "sluice"
    titles = ["", head.title, "min to max", f"{'Sluice' if ours == 'sluice' else ours} / this",
              *(figure.title for figure in columns)]
    codes = any("codes" in turn for turns in results.values() for turn in turns)
    if codes:
        titles.append("how sessions ended")
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name, turns in results.items():
        values = [turn[head.key] for turn in turns if head.key in turn]
        spread = (f"{number(min(values), head.digits)} to {number(max(values), head.digits)}"
                  if values else "")
        cells = [name, cell(results, name, head), spread, ratio(results, name, head.key, ours),
                 *(cell(results, name, figure) for figure in columns)]
        if codes:
            cells.append(endings(turns))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def endings(turns):
    """How the sessions of all turns ended, with the share of each."""
    total = sum(turn["sessions"] for turn in turns)
    counts = {}
    for turn in turns:
        for how, count in turn["codes"].items():
            how = f"CLOSE {how}" if how.isdigit() else how
            counts[how] = counts.get(how, 0) + count
        if turn["open"]:
            counts["still open"] = counts.get("still open", 0) + turn["open"]
    return ", ".join(f"{how}: {100 * count / total:.0f} %"
                     for how, count in sorted(counts.items(), key=lambda item: -item[1]))


def summary_rows(measured):
    """For each headline figure: (scenario, figure, Sluice, best peer's name, its value, ratio,
    relay). `measured` is pairs of a scenario and its results. Without Sluice or without a peer there
    is no row."""
    rows = []
    for scenario, results in measured:
        if scenario.mode == "drain":
            continue
        for figure in scenario.headlines:
            ours = median(results, "sluice", figure.key)
            name, theirs = best_peer(results, figure.key)
            if ours is None or not theirs:
                continue
            rows.append((scenario, figure, ours, name, theirs, ours / theirs,
                         median(results, "relay", figure.key)))
    return rows


def summary(measured):
    lines = ["| Scenario | | Sluice | Best peer | Sluice / best peer | Relay | Sluice / relay |",
             "|---|---|---|---|---|---|---|"]
    for scenario, figure, ours, name, theirs, share, relay in summary_rows(measured):
        relay_cells = (["", ""] if relay is None else
                       [number(relay, figure.digits), f"{ours / relay:.2f}" if relay else ""])
        lines.append("| " + " | ".join([
            f"`{scenario.name}`", figure.title, number(ours, figure.digits),
            f"{number(theirs, figure.digits)} ({name})", f"{share:.2f}", *relay_cells]) + " |")
    for scenario, results in measured:
        if scenario.name != "workers2":
            continue
        for key, title, digits in (("cpu_us", "CPU us/round trip", 2),
                                   ("per_second", "round trips/s", 0)):
            one, two = (median(results, name, key) for name in ("1 worker", "2 workers"))
            if one and two:
                lines.append(f"| `workers2` | {title}, 2 workers against 1 | "
                             f"{number(two, digits)} | {number(one, digits)} (1 worker) | "
                             f"{two / one:.2f} | | |")
    return "\n".join(lines)


def scenario_heading(scenario, report):
    how = scenario.title
    if scenario.mode in ("idle", "events"):
        how = f"{report['sessions']:,} {how}"
    turns = max(len(turns) for turns in report["turns"][scenario.name].values())
    long = f" of {report['seconds']:g} seconds" if scenario.mode not in ("idle", "events", "drain") else ""
    return f"`{scenario.name}`: {how}, medians of {turns} turns{long}"


def markdown(report, measured, chart=""):
    """The results as a section of docs/BENCHMARKS.md; `chart` is the path of the picture."""
    versions = ", ".join(dict.fromkeys(report["versions"].values()))
    loads = report["load_average"]
    parts = [
        f"{report['date']}, revision {report['revision']}, `{report['command']}`. {versions}; "
        f"{report['openssl']}. {report['machine']}. Load average of the machine meanwhile: "
        f"{min(loads):.1f} to {max(loads):.1f}.",
    ]
    if chart:
        parts.append(f"![What Sluice needs beside the best of its peers]({chart})")
    parts.append(summary(measured))
    for scenario, results in measured:
        parts.append(f"{scenario_heading(scenario, report)}:")
        parts.append(table(scenario, results))
    return "\n\n".join(parts) + "\n"
