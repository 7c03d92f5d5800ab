"""A bar chart of the benchmark as SVG: for each scenario what Sluice and its peers need, as a
multiple of what the best peer needs. Pure text, readable on light and on dark ground."""

from xml.sax.saxutils import escape

from report import median, number, summary_rows
from scenarios import PEERS

LEFT = 250  # of the bars: room for the names of the scenarios
SCALE = 220  # pixels for the best peer's bar
LONGEST = 2.5  # times the best peer; what is longer is cut, its value says by how much
RIGHT = 120  # room for the values
BAR, GAP, TOP = 13, 14, 64
WIDTH = int(LEFT + SCALE * LONGEST + RIGHT)

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .figure, .value { font-size: 11px; fill: #59636e; }
  .axis { stroke: #59636e; stroke-width: 1; }
  .ground { fill: #ffffff; }
  .sluice { fill: #0969da; } .haproxy { fill: #9aa4af; } .haproxy-splice { fill: #c4a36a; }
  .nginx { fill: #74a57f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .figure, .value { fill: #9198a1; }
    .axis { stroke: #9198a1; }
    .ground { fill: #0d1117; }
    .sluice { fill: #4493f8; } .haproxy { fill: #6e7681; } .haproxy-splice { fill: #a5803f; }
    .nginx { fill: #4d8159; }
  }
"""


def text(x, y, content, kind="", anchor="start"):
    label = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{label} text-anchor="{anchor}">{escape(content)}</text>'


def legend():
    parts, x = [], LEFT
    for name in ("sluice", *PEERS):
        parts.append(f'<rect class="{name}" x="{x}" y="34" width="12" height="12" rx="2"/>')
        parts.append(text(x + 17, 44, name))
        x += 45 + 8 * len(name)
    return parts


def bars(scenario, figure, results, best, y):
    parts = []
    for name in ("sluice", *PEERS):
        value = median(results, name, figure.key)
        if value is None:
            continue
        share = value / best
        width = max(SCALE * min(share, LONGEST), 1)
        parts.append(f'<rect class="{name}" x="{LEFT}" y="{y}" width="{width:.1f}" '
                     f'height="{BAR - 2}" rx="2"/>')
        words = f"{share:.2f} × ({number(value, figure.digits)})"
        # Never on the line that marks the best peer.
        x = LEFT + max(width, SCALE) + 7
        parts.append(text(f"{x:.1f}", y + BAR - 4, words, "value"))
        y += BAR
    return parts, y


def chart(measured):
    """SVG of the headline figures of `measured`, pairs of a scenario and its results."""
    by_name = dict((scenario.name, results) for scenario, results in measured)
    parts, y = [], TOP
    for scenario, figure, _, _, best, _, _ in summary_rows(measured):
        group, end = bars(scenario, figure, by_name[scenario.name], best, y)
        middle = (y + end) / 2
        parts.append(text(LEFT - 10, f"{middle - 2:.1f}", scenario.name, anchor="end"))
        parts.append(text(LEFT - 10, f"{middle + 11:.1f}", figure.title, "figure", "end"))
        parts += group
        y = end + GAP
    best_x = LEFT + SCALE
    head = [
        f'<rect class="ground" width="{WIDTH}" height="{y + 8}"/>',
        text(16, 22, "What each needs, as a multiple of the best of the others: less is better",
             "title"),
        *legend(),
        f'<line class="axis" x1="{LEFT}" y1="{TOP - 6}" x2="{LEFT}" y2="{y - GAP + 4}"/>',
        f'<line class="axis" stroke-dasharray="3 4" x1="{best_x}" y1="{TOP - 6}" x2="{best_x}" '
        f'y2="{y - GAP + 4}"/>',
    ]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 8}" '
            f'width="{WIDTH}" height="{y + 8}" role="img">\n<style>{STYLE}</style>\n'
            + "\n".join(head + parts) + "\n</svg>\n")
