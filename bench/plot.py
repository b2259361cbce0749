"""docs/benchmarks.svg, by matplotlib in the benchmark's own environment: `python -m bench.plot POINTS PICTURE`."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

COLOURS = ("#7aa6c2", "#1f5f8b", "#0b2545")  # light to dark: few rows to many
OURS = "#c0392b"


def draw(points: Path, picture: Path) -> None:
    told = json.loads(points.read_text())
    titles = list(dict.fromkeys(point["title"] for point in told["points"]))[::-1]
    sizes = list(dict.fromkeys(point["size"] for point in told["points"]))
    figure = Figure(figsize=(10, 1.6 + 0.38 * len(titles)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, what in zip(axes, ("seconds", "auc"), strict=True):
        for size, colour in zip(sizes, COLOURS, strict=False):
            own = [point for point in told["points"] if point["size"] == size]
            middle = [point[what][0] for point in own]
            spread = [[p[what][0] - p[what][1] for p in own], [p[what][2] - p[what][0] for p in own]]
            at = [titles.index(point["title"]) for point in own]
            axis.errorbar(middle, at, xerr=spread, fmt="o", color=colour, markersize=7, capsize=3, label=size)
        axis.grid(axis="x", color="#e6e6e6", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    seconds, auc = axes
    seconds.set_xscale("log")
    seconds.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low = min((p["seconds"][1] for p in told["points"]), default=1)
    high = max((p["seconds"][2] for p in told["points"]), default=10)
    seconds.set_xlim(low / 1.5, high * 1.5)
    ticks = [t for t in (0.3, 1, 3, 10, 30, 100, 300, 1000, 3000) if low / 1.5 <= t <= high * 1.5]
    seconds.set_xticks(ticks)
    seconds.xaxis.set_minor_formatter(NullFormatter())
    seconds.set_yticks(range(len(titles)), titles)
    seconds.set_ylim(-0.6, len(titles) - 0.4)
    for label in seconds.get_yticklabels():
        if label.get_text() == "this project":
            label.set(color=OURS, fontweight="bold")
    seconds.set_xlabel("end-to-end seconds (log scale; left is better)")
    auc.set_xlabel("AUC on the test side (right is better)")
    figure.suptitle(f"One tree of depth {told['depth']}: median and range", fontsize=12)
    figure.legend(
        *seconds.get_legend_handles_labels(), loc="outside lower center", ncols=max(len(sizes), 1), frameon=False
    )
    with mpl.rc_context({"svg.hashsalt": "dml", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None, dpi=120)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
