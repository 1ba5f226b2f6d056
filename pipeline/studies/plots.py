"""Figures as PNG and SVG, readable in print: distinct colours and markers, labels on every axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from emopipe.models.evaluation.explain import agree_on_largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from emopipe.models.evaluation.explain import Explanation

#: Okabe and Ito's colours, which stay apart for the colour-blind.
COLOURS: Final = ("#D55E00", "#009E73", "#0072B2", "#E69F00", "#7F7F7F", "#56B4E9", "#CC79A7", "#000000")
MARKERS: Final = ("o", "s", "^", "D", "X", "v", "P", "*")
MODALITY_COLOURS: Final = {"text": "#E69F00", "face": "#0072B2", "voice": "#009E73"}
#: Parameters as the paper writes them.
SYMBOLS: Final = {
    "alpha": r"$\alpha$ (similarity within the router losses)",
    "lambda1": r"$\lambda_1$ (router losses)",
    "lambda2": r"$\lambda_2$ (distillation)",
    "temperature": "t (temperature of the router)",
}
#: Utterances shown one by one.
MOST_BARS: Final = 60


def save(figure: Figure, out: Path) -> list[Path]:
    """Write `out` with the suffixes .png and .svg."""
    paths = [out.with_name(f"{out.name}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=160, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def scatter(places: Any, labels: Any, title: str, out: Path) -> list[Path]:
    """t-SNE places (N, 2), coloured by class or, for numeric labels, by value."""
    figure = Figure(figsize=(8, 6))
    axes = figure.add_subplot()
    if all(isinstance(label, str) for label in labels):
        for number, name in enumerate(sorted(set(labels))):
            inside = np.asarray(labels) == name
            axes.scatter(
                places[inside, 0],
                places[inside, 1],
                s=36,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                edgecolors="white",
                linewidths=0.5,
                label=f"{name} ({inside.sum()})",
            )
        axes.legend(title="label (utterances)", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    else:
        drawn = axes.scatter(
            places[:, 0], places[:, 1], s=36, c=np.asarray(labels, dtype=float), cmap="coolwarm", edgecolors="grey"
        )
        figure.colorbar(drawn, label="label")
    axes.set(title=title, xlabel="t-SNE, first dimension", ylabel="t-SNE, second dimension", xticks=[], yticks=[])
    return save(figure, out)


def scatter_side_by_side(places: Mapping[str, Any], labels: Mapping[str, Any], title: str, out: Path) -> list[Path]:
    """t-SNE places of several models in one embedding, a panel each with the same axes and colours.

    Args:
        places: model -> (N, 2), of one embedding.
        labels: model -> (N,) class names, or values.
        title: above all.
        out: the path without suffix.
    """
    figure = Figure(figsize=(4.6 * len(places), 4.6), layout="constrained")
    panels = figure.subplots(1, len(places), sharex=True, sharey=True, squeeze=False).flat
    every = [label for one in labels.values() for label in one]
    classes = sorted(set(every)) if all(isinstance(label, str) for label in every) else []
    look: dict[str, Any]
    for axes, (name, points) in zip(panels, places.items(), strict=True):
        for number, label in enumerate(classes):
            inside = np.asarray(labels[name]) == label
            look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            axes.scatter(*points[inside].T, s=24, edgecolors="white", linewidths=0.4, label=label, **look)
        if not classes:
            values, limit = np.asarray(labels[name], dtype=float), float(np.abs(np.asarray(every, dtype=float)).max())
            look = {"cmap": "coolwarm", "vmin": -limit, "vmax": limit, "edgecolors": "grey", "linewidths": 0.3}
            drawn = axes.scatter(*points.T, s=24, c=values, **look)
        axes.set(title=name, xticks=[], yticks=[], xlabel="t-SNE, first dimension")
    figure.axes[0].set_ylabel("t-SNE, second dimension")
    if classes:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, title="label", loc="outside right center", frameon=False)
    else:
        figure.colorbar(drawn, ax=list(figure.axes), label="label")
    figure.suptitle(title)
    return save(figure, out)


def importance(explanation: Explanation, ranks: Mapping[str, float], title: str, out: Path) -> list[Path]:
    """Modality importance above the router's weight, utterance by utterance in the same order.

    Only utterances that leave the router a choice are drawn: those with two modalities or more. The largest share of
    each is framed, so that whom the router trusts most and who errs least can be compared one by one.
    """
    choice = np.flatnonzero(explanation.present.sum(axis=1) > 1)
    rows = _spread(explanation, choice)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    axes[0].set_title(title)
    _bars(axes[0], explanation.importance[rows], explanation.modalities, "importance\n(share of inverse error)")
    _bars(axes[1], explanation.weights[rows], explanation.modalities, "router weight")
    agree = ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.items())
    agree += f"; the framed largest shares are of the same modality in {agree_on_largest(explanation):.0%}"
    axes[1].set_xlabel(
        f"{len(rows)} of {len(choice)} utterances with two modalities or more, by importance of "
        f"{explanation.modalities[0]}\nrank correlation of importance and weight: {agree}"
    )
    axes[1].set_xticks([])
    axes[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return save(figure, out)


def _spread(explanation: Explanation, rows: Any) -> Any:
    """At most :data:`MOST_BARS` of the rows, evenly spread over the importance of the first modality."""
    order = rows[np.argsort(explanation.importance[rows, 0], kind="stable")]
    chosen = np.unique(np.linspace(0, len(order) - 1, min(MOST_BARS, len(order))).round().astype(int))
    return order[chosen]


def _bars(axes: Axes, shares: Any, modalities: Sequence[str], label: str) -> None:
    bottom, places = np.zeros(len(shares)), np.arange(len(shares))
    for column, name in enumerate(modalities):
        axes.bar(places, shares[:, column], bottom=bottom, width=0.9, color=MODALITY_COLOURS[name], label=name)
        bottom += shares[:, column]
    most = np.asarray(shares).argmax(axis=1) if len(shares) else np.zeros(0, dtype=int)
    heights = shares[places, most]
    starts = np.cumsum(shares, axis=1)[places, most] - heights
    axes.bar(places, heights, bottom=starts, width=0.9, fill=False, edgecolor="black", linewidth=1.1)
    axes.set(ylabel=label, ylim=(0, 1), xlim=(-0.6, len(shares) - 0.4))


def sweep(
    tables: Mapping[str, Sequence[Mapping[str, float]]], chosen: Mapping[str, float], metric: str, out: Path
) -> list[Path]:
    """One panel per parameter: mean and standard deviation of a metric at each value, the configured one filled.

    Args:
        tables: parameter -> rows with `value`, `mean` and `sd`.
        chosen: parameter -> configured value.
        metric: its name.
        out: the path without suffix.
    """
    columns = 2 if len(tables) > 1 else 1
    figure = Figure(figsize=(5.2 * columns, 3.4 * -(-len(tables) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(tables) // columns), columns, sharey=True, squeeze=False).flat
    for axes, (name, rows) in zip(panels, tables.items(), strict=False):
        places = np.arange(len(rows))
        means, sds = ([row[key] for row in rows] for key in ("mean", "sd"))
        axes.errorbar(places, means, np.nan_to_num(sds), color=COLOURS[2], marker="o", mfc="white", capsize=4)
        here = [place for place, row in zip(places, rows, strict=True) if row["value"] == chosen[name]]
        axes.plot(here, [means[place] for place in here], "o", color=COLOURS[2], ms=9, zorder=5, label="configured")
        axes.set_xticks(places, [f"{row['value']:g}" for row in rows])
        axes.set_xlabel(SYMBOLS.get(name, name))
        axes.grid(axis="y", alpha=0.3)
    for row in figure.axes[::columns]:
        row.set_ylabel(f"{metric.upper()}, mean and sd over runs")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", frameon=False)
    return save(figure, out)


def learning_curves(
    axes_points: Mapping[str, Sequence[Mapping[str, float]]],
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]],
    metric: str,
    now: float,
    out: Path,
) -> list[Path]:
    """One panel per axis: measured points with their intervals, and the power law with its doubt, dotted beyond.

    Args:
        axes_points: title -> points with `clips`, `value`, `low` and `high`.
        lines: title -> rows of clips, the metric, and the ends of its interval.
        metric: its name.
        now: the clips that there are.
        out: the path without suffix.
    """
    figure = Figure(figsize=(5.4 * len(axes_points), 3.8), layout="constrained")
    panels = figure.subplots(1, len(axes_points), sharey=True, squeeze=False).flat
    for axes, (title, points) in zip(panels, axes_points.items(), strict=True):
        x = [point["clips"] for point in points]
        reach = [[abs(point["value"] - point[end]) for point in points] for end in ("low", "high")]
        axes.errorbar(x, [point["value"] for point in points], reach, color=COLOURS[2], fmt="o", capsize=4)
        line = np.array(lines.get(title, np.zeros((0, 4))))
        axes.fill_between(line[:, 0], line[:, 2], line[:, 3], color=COLOURS[2], alpha=0.15, linewidth=0)
        within = line[:, 0] <= max(x)
        axes.plot(line[within, 0], line[within, 1], color=COLOURS[2])
        axes.plot(line[~within, 0], line[~within, 1], color=COLOURS[2], linestyle=":")
        axes.axvline(now, color="grey", linewidth=1, linestyle="--")
        axes.set(title=title, xlabel="clips to train on (dashed: all there are)")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(f"{metric.upper()} of people whom training did not see")
    return save(figure, out)


def histograms(panels: Mapping[str, Any], label: str, limits: tuple[float, float], title: str, out: Path) -> list[Path]:
    """One panel below the other for each array of numbers, all with the same axes and the mean marked.

    Args:
        panels: name -> (R,) numbers.
        label: of the numbers.
        limits: least and largest number.
        title: above all.
        out: the path without suffix.
    """
    figure = Figure(figsize=(7.2, 1 + 1.35 * len(panels)), layout="constrained")
    bins = np.linspace(*limits, 41)
    for axes, (name, values) in zip(
        figure.subplots(len(panels), 1, sharex=True, squeeze=False).flat, panels.items(), strict=True
    ):
        share = np.full(len(values), 100 / max(1, len(values)))
        axes.hist(values, bins, weights=share, color=COLOURS[2])
        mean = float(np.mean(values))
        axes.axvline(mean, color=COLOURS[0], linestyle="--", linewidth=1.5)
        axes.set_title(f"{name}: mean {mean:.2f} over {len(values)} utterances", loc="left", fontsize="medium")
        axes.set(xlim=limits, ylim=(0, max(1.0, axes.get_ylim()[1])))
        axes.grid(axis="y", alpha=0.3)
    figure.supylabel("% of utterances", fontsize="medium")
    figure.axes[-1].set_xlabel(label)
    figure.suptitle(title)
    return save(figure, out)


def matrix(table: Any, names: Sequence[str], label: str, title: str, out: Path) -> list[Path]:
    """A (K, K) table of numbers from -1 to 1 as coloured squares with the numbers in them."""
    side = 2.6 + 0.8 * len(names)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(table, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(table):
        words = "n/a" if np.isnan(value) else f"{value:.2f}"
        colour = "white" if abs(np.nan_to_num(value)) > 0.6 else "black"
        axes.text(column, row, words, ha="center", va="center", color=colour)
    figure.colorbar(shown, label=label, shrink=0.8)
    axes.set_title(title)
    return save(figure, out)


def gaps(rows: Sequence[Mapping[str, Any]], label: str, title: str, out: Path) -> list[Path]:
    """A difference with its interval for each row, beside the line of no difference.

    Args:
        rows: with `name`, `difference`, `low` and `high`.
        label: what the difference is of.
        title: above it.
        out: the path without suffix.
    """
    figure = Figure(figsize=(7.2, 1.5 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        axes.plot([row["low"], row["high"]], [place, place], color=COLOURS[2], linewidth=2)
        axes.plot(row["difference"], place, "o", color=COLOURS[2])
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set(xlabel=label, title=title, ylim=(len(rows) - 0.4, -0.6))
    axes.grid(axis="x", alpha=0.3)
    return save(figure, out)


def traces(
    times: Any, names: tuple[str, str], panels: Mapping[str, Mapping[str, Any]], title: str, note: str, out: Path
) -> list[Path]:
    """Small panels with the same axes, each with two lines over time.

    Args:
        times: (N,) seconds.
        names: of the lines, for the legend; a panel may lack one.
        panels: title -> name -> (N,) values of 0..1.
        title: above all.
        note: beneath, in small print.
        out: the path without suffix.
    """
    rows = -(-len(panels) // 4)
    looks: dict[str, dict[str, Any]] = {names[0]: {"color": COLOURS[2]}, names[1]: {"color": COLOURS[0], "ls": "--"}}
    figure = Figure(figsize=(13, 1.2 + 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, 4, sharex=True, sharey=True, squeeze=False)
    for axes, (name, lines) in zip(grid.flat, panels.items(), strict=False):
        for line, values in lines.items():
            axes.plot(times, values, **looks[line])
        axes.set_title(name, loc="left", fontsize="small")
        axes.set(ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(title, x=0.01, ha="left")
    figure.supylabel("action unit, 0 to 1", fontsize="small")
    figure.supxlabel("\n".join(filter(None, ["time in seconds", note])), fontsize="small")
    return save(figure, out)
