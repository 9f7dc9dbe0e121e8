"""Draws the table of `crossfer predict MODEL clip.mp4 --out faces.csv` as a timeline.

    python timeline.py faces.csv timeline.png

Needs Matplotlib. One row for each face that was followed through the video.
"""

import csv
import sys
from collections import defaultdict

from matplotlib.figure import Figure


def timeline(rows, out):
    """Draw the probability of each class over time, a row of axes for each face."""
    faces = defaultdict(list)
    for row in rows:
        if row["face"]:  # empty: a picture or a frame without one
            faces[row["face"]].append(row)
    names = [name for name in rows[0] if name.startswith("p_")]
    figure = Figure(figsize=(10, 1 + 2.4 * len(faces)), dpi=110, layout="constrained")
    axes = figure.subplots(len(faces), sharex=True, squeeze=False)[:, 0]
    for (face, seen), one in zip(faces.items(), axes, strict=True):
        seconds = [float(row["seconds"]) for row in seen]
        shares = [[float(row[name]) for row in seen] for name in names]
        one.stackplot(seconds, shares, labels=[name.removeprefix("p_") for name in names])
        one.set(ylabel=f"face {face}\nprobability", ylim=(0, 1), xlim=(seconds[0], seconds[-1]))
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, reverse=True)
    axes[-1].set_xlabel("seconds")
    figure.savefig(out)


if __name__ == "__main__":
    table, out = sys.argv[1:]
    with open(table, newline="", encoding="utf-8") as file:
        timeline(list(csv.DictReader(file)), out)
