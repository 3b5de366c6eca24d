"""The report of a race: one self-contained HTML page, and its figures as PNG files beside it."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxnn import files
from jaxnn.checks import count_of
from jaxnn.compare.figures import Drawing, figures
from jaxnn.compare.result import NEAR, Race, Result, shown, versions

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 90rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
p { max-width: 60rem; }
th, td { padding: .3rem .5rem; font-size: 15px; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
td { white-space: nowrap; }
td.best { font-weight: 700; }
td.text { white-space: normal; }
td.text, th.text { text-align: left; }
.wide { overflow-x: auto; }
figure { margin: 1.5rem 0 2.5rem; }
figure img { max-width: 100%; height: auto; border: 1px solid #ddd; }
figcaption, .note { color: #555; font-size: 15px; max-width: 60rem; }
code { background: #f3f3f3; padding: .1rem .3rem; }
"""

HEADS = (
    "optimizer", "learning rate", "performance", "quartiles", "diverged", "reached", "steps to target",
    "seconds to target", "tuneability", "ms a step", "compile s", "state kB",
)  # fmt: skip


def write(race: Race, folder: str | Path, *, command: str = "") -> Path:
    """Write the figures as PNG files, race.json, curves.npz and curves.csv, and report.html with figures and tables.

    Args:
        race: finished or partial.
        folder: created if necessary; files of the same name are overwritten.
        command: the command line of the race, shown on the page.

    Returns:
        The path of report.html, which embeds its figures and needs no network.

    Example:
        >>> import tempfile
        >>> write(Race((), {}, {}, {}), tempfile.mkdtemp()).name
        'report.html'
    """
    folder = race.save(folder)
    shown_of: dict[str, list[str]] = {"": []}
    for each in figures(race):
        image = _png(each.figure)
        files.write_bytes(folder / f"{each.name}.png", image)
        shown_of.setdefault(each.problem, []).append(_figure(each, image))
    return files.write_text(folder / "report.html", "\n".join(_page(race, shown_of, command)) + "\n")


def _page(race: Race, shown_of: Mapping[str, Sequence[str]], command: str) -> Iterator[str]:
    """The lines of the page; `shown_of` holds the figures of each problem, and under "" those of all problems."""
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # An empty icon; browsers would request one otherwise.
    yield f'<title>jaxnn race</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>'
    yield f"<h1>Race of {count_of(len(race.optimizers), 'optimizer')} on {count_of(len(race.problems), 'problem')}</h1>"
    if command:
        yield f"<p><code>{html.escape(command)}</code></p>"
    yield from _protocol(race)
    if len(race.problems) > 1:
        yield from _overview(race)
    for problem in race.problems:
        yield f'<h2 id="{html.escape(problem)}">{html.escape(problem)}</h2>'
        yield from (f'<p class="note">{html.escape(note)}</p>' for note in race.notes.get(problem, ()))
        yield from _table(race.of(problem))
        yield from shown_of[problem]
    if shown_of[""]:
        yield "<h2>All problems</h2>"
        yield from shown_of[""]
    yield "<h2>Configuration</h2>"
    yield from _pairs({name: _words(value) for name, value in race.settings.items()})
    yield "<h2>Measured on</h2>"
    yield from _pairs(versions())
    yield "</body>\n</html>"


def _protocol(race: Race) -> Iterator[str]:
    """The meaning of the columns."""
    if not race.settings:
        return
    rates, tuning, fresh = (race.settings[name] for name in ("learning_rates", "tuning_seeds", "seeds"))
    tried, again = count_of(len(rates), "learning rate"), count_of(fresh, "fresh seed")
    yield (
        f"<p>Each optimizer was tuned on each problem over {tried} from {rates[0]:.3g} to {rates[-1]:.3g}, with "
        f"{count_of(tuning, 'seed')} each; the rate whose metric after the last epoch is best on the validation set "
        f"was run again with {again}.</p>\n<p><b>Performance</b> is the mean "
        "metric of these runs after the last epoch, on the test set where the problem has one (it is used only then); "
        "lower is better, and the best is bold. <b>Speed</b>: median steps, and seconds of a single run, until the "
        "validation metric, evaluated after each epoch, reaches the target. <b>Tuneability</b>: decades of the "
        f"learning rate around the best in which the metric stays within {NEAR} times the best. The protocol is that "
        "of Schneider, Balles &amp; Hennig (2019), DeepOBS.</p>"
    )


def _overview(race: Race) -> Iterator[str]:
    """Performance on every problem, and the mean rank: for a race on several problems."""
    ranks: dict[str, list[int]] = {who: [] for who in race.optimizers}
    cells: dict[str, list[str]] = {who: [] for who in race.optimizers}
    for problem in race.problems:
        found = race.of(problem)
        for r in found:
            rank = 1 + sum(other.performance < r.performance for other in found)
            ranks[r.optimizer].append(rank)
            best = " class=best" if rank == 1 and math.isfinite(r.performance) else ""
            cells[r.optimizer].append(f"<td{best}>{_number(shown(r.final_name)[0] * r.performance)}</td>")
        for who in set(race.optimizers) - {r.optimizer for r in found}:
            cells[who].append("<td>&ndash;</td>")
    units = [race.of(p)[0].final_name for p in race.problems]
    heads = "".join(
        f"<th>{html.escape(p)}<br>{shown(unit)[1]}</th>" for p, unit in zip(race.problems, units, strict=True)
    )
    yield f'<h2>Overview</h2>\n<div class="wide"><table>\n<tr><th>optimizer</th>{heads}<th>mean rank</th></tr>'
    for who in sorted(race.optimizers, key=lambda who: float(np.mean(ranks[who]))):
        yield f"<tr><td>{html.escape(who)}</td>{''.join(cells[who])}<td>{np.mean(ranks[who]):.2f}</td></tr>"
    yield "</table></div>"


def _table(found: Sequence[Result]) -> Iterator[str]:
    """The results on one problem, the best optimizer first, with notes."""
    (percent, told), target = shown(found[0].final_name), found[0].target
    best = min(r.performance for r in found)
    aim = "no target" if target is None else f"target: {shown(found[0].figure)[1]} of {percent * target:.4g}"
    yield f'<p>Performance: {told}; {aim}.</p>\n<div class="wide"><table>\n<tr>'
    yield "".join(f"<th>{head}</th>" for head in HEADS) + "</tr>"
    for r in sorted(found, key=lambda r: r.performance):
        low, high = (percent * q for q in r.quartiles)
        steps, seconds = np.median(r.steps_to_target), np.median(r.seconds_to_target)
        reached = f"{int(np.isfinite(r.steps_to_target).sum())} of {len(r.final)}" if target is not None else "&ndash;"
        cost = r.cost
        cells = [
            html.escape(r.optimizer),
            (f"{r.rate:.3g}" if np.isfinite(r.tuned).any() else "&ndash;") + (" *" if r.at_the_edge else ""),
            _number(percent * r.performance), f"{_number(low)} &ndash; {_number(high)}",
            f"{r.diverged} of {len(r.final)}",
            reached, _number(steps, "{:.0f}"), _number(seconds, "{:.3g}"), f"{r.tuneability:.2f}",
            *(["&ndash;"] * 3 if cost is None else [f"{1e3 * cost.step_seconds:.3g}", f"{cost.compile_seconds:.2f}",
              f"{cost.state_bytes / 1e3:.4g}"]),
        ]  # fmt: skip
        marked = {2} if r.performance == best and math.isfinite(best) else set()
        row = (f"<td{' class=best' if i in marked else ''}>{cell}</td>" for i, cell in enumerate(cells))
        yield f"<tr>{''.join(row)}</tr>"
    yield "</table></div>"
    if any(r.at_the_edge for r in found):
        yield '<p class="note">* At the edge of the grid: a better learning rate may lie outside.</p>'
    for r in found:
        if not np.isfinite(r.tuned).any():
            yield f'<p class="note">{html.escape(r.optimizer)} diverged at every learning rate of the grid.</p>'


def _figure(drawing: Drawing, image: bytes) -> str:
    told = html.escape(drawing.title)
    data = base64.b64encode(image).decode()
    return (
        f'<figure id="{html.escape(drawing.name)}">\n<h3>{told}</h3>\n<img src="data:image/png;base64,{data}" '
        f'alt="{told}">\n<figcaption>{html.escape(drawing.caption)}</figcaption>\n</figure>'
    )


def _pairs(pairs: Mapping[str, str]) -> Iterator[str]:
    yield "<table>"
    for name, value in pairs.items():
        yield f'<tr><td>{html.escape(name.replace("_", " "))}</td><td class="text">{html.escape(value)}</td></tr>'
    yield "</table>"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {each}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in value)
    return str(value)


def _number(value: float, form: str = "{:.4g}") -> str:
    return form.format(value) if math.isfinite(value) else "&ndash;"


def _png(fig: Figure) -> bytes:
    out = io.BytesIO()
    fig.savefig(out, format="png")
    return out.getvalue()
