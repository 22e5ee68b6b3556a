"""Draws how long a night takes against how many residents there are."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

mpl.use("svg")

COLOURS = {"file": "#4c78a8", "sqlite": "#f58518", "postgresql": "#54a24b"}
LINES = {"first": "-", "next day": ":", "next day, --all": "--"}


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Write the plot: both axes in decades, and the line on which the time is proportional."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for kind in dict.fromkeys(each["kind"] for each in found):
        for night in dict.fromkeys(each["night"] for each in found):
            points = [
                (each["residents"], each["seconds"]) for each in found if (each["kind"], each["night"]) == (kind, night)
            ]
            axes.plot(*np.array(points).T, LINES[night], marker="o", color=COLOURS[kind], label=f"{kind}, {night}")
    most = max(each["residents"] for each in found)
    residents = np.array([min(each["residents"] for each in found), most])
    axes.plot(residents, 180 * residents / 1_000_000, color="0.6", linewidth=1, label="3 minutes a million")
    axes.set(xscale="log", yscale="log", xlabel="residents", ylabel="seconds, start of the program left out")
    axes.set_title("A night of weibing score: three targets, drivers, two cores", loc="left")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
