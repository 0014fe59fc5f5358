"""Pictures of results; needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from bench.intervals import Cell, wilson


def draw(cells: Sequence[Cell], path: Path, difficulties: Sequence[str]) -> None:
    """Accuracy against generated tokens with Wilson's 95 % bands: a row a difficulty, a column a PRM quality.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        from matplotlib import colormaps  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeError("drawing needs matplotlib: install tts-server[bench]") from error
    qualities = sorted({cell.quality or 0.0 for cell in cells})
    labels = list(dict.fromkeys(cell.label for cell in sorted(cells, key=lambda cell: cell.budget)))
    colours = dict(zip(labels, colormaps["tab20"].colors, strict=False))  # type: ignore[attr-defined]
    figure = Figure(figsize=(4 * len(qualities), 3 * len(difficulties) + 1.2), layout="constrained")
    grid = figure.subplots(len(difficulties), len(qualities), sharex=True, sharey="row", squeeze=False)
    for row, difficulty in zip(grid, difficulties, strict=True):
        for axes, quality in zip(row, qualities, strict=True):
            for label in labels:
                here = (label, difficulty, quality)
                curve = sorted(
                    (cell for cell in cells if (cell.label, cell.difficulty, cell.quality) == here),
                    key=lambda cell: cell.completion_tokens,
                )
                tokens = [cell.completion_tokens for cell in curve]
                bands = [wilson(sum(cell.hits), len(cell.hits)) for cell in curve]
                axes.fill_between(tokens, *zip(*bands, strict=True), color=colours[label], alpha=0.1, linewidth=0)
                axes.plot(
                    tokens,
                    [cell.accuracy for cell in curve],
                    marker="*" if len(curve) == 1 else ".",
                    color=colours[label],
                    label=label,
                    linewidth=1.2,
                )
            axes.set_xscale("log", base=2)
            axes.grid(alpha=0.3)
            axes.set_title(f"{difficulty}, PRM quality {quality:g}", fontsize=10)
        row[0].set_ylabel("accuracy")
    for axes in grid[-1]:
        axes.set_xlabel("generated tokens a question")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(8, len(names)), fontsize=9)
    figure.savefig(path, dpi=110)
