"""Write the table of a suite in Markdown and as an HTML page."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

import tomli_w
from markdown_it import MarkdownIt

from ebsc_core.benchmark.gains import Gain
from ebsc_core.benchmark.results import Entry, Results, Spread
from ebsc_core.benchmark.suite import PATHS, Cell, SuiteFile
from ebsc_core.config.flags import FLAGS
from ebsc_core.config.loading import flattened, parse_settings
from ebsc_core.runs.store.listing import SCORES

LEGEND = (
    "ACC, NMI and ARI in percent, {seeds}. {protocol} Features, s: training and extraction, by "
    "whichever run made them; after, s: everything after the features. Reading data and scoring are "
    "in neither. {machine}"
)
GAINS = (
    " Gain, in points of ACC / NMI / ARI: the mean difference of runs of the same seed on the same data, "
    "± its standard error over the seeds; in the averages, over the data sets. {mark}: significant at 5 % "
    "in a two-sided paired t-test over the same pairs."
)
SIGNIFICANT = "†"
ROWS = (
    " k-NN, in percent: the rows with the class that most of their 20 nearest neighbours have (of fewer in "
    "small classes); it judges the rows, not the clusters."
)
DIFFERENCES = "Resolved settings that differ from those of the row's baseline, beyond what the row names:"
ONE_SEED = "of seed {}. **Bold**: the best"
SEEDS = (
    "mean ± standard deviation over seeds {}. **Bold**: the best mean; *italic*: within one standard "
    "deviation of it"
)
PROTOCOLS = {
    "all": "Fitted and scored on all images.",
    "train-test": "Fitted on the training images alone; scored on the held-out ones, each in the cluster "
    "that its coefficients over the training images assign it to.",
}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #8884; text-align: left; }}
td + td, th + th {{ text-align: right; font-variant-numeric: tabular-nums; }}
pre {{ overflow-x: auto; background: #8882; padding: .7rem; }}
</style>
{body}
</html>
"""


def html(results: Results) -> str:
    """Return the Markdown table as a self-contained HTML page."""
    # Treat tags in a name or a message as text.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown(results))
    return PAGE.format(title=escape(results.suite.file.title), body=body)


def markdown(results: Results, commands: bool = True) -> str:
    """Return title, a table for each data set, averages, published figures, failures and commands."""
    file = results.suite.file
    parts = [f"# {_name(file.title)}", file.about.strip(), _legend(results)]
    for column in file.data:
        note = results.suite.note(column) or ""
        parts += [f"## {_name(column)}", _name(note), _table(results, column)]
        parts += [_differences(results, column), _published(results, column)]
    if len(file.data) > 1:
        parts += ["## Average over the data sets", _average(results)]
    parts += [_failures(results), _warnings(results), _commands(results) if commands else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def _legend(results: Results) -> str:
    file, details = results.suite.file, results.circumstances
    versions = details["versions"]
    software = f"ebsc {versions['ebsc']}" + (f" ({details['commit']})" if details["commit"] else "")
    changes = ", ".join(f"{setting}={_toml(value)}" for setting, value in flattened(results.suite.changes))
    changed = f" Changed in every run: {_name(changes)}." if changes else ""
    gains = GAINS.format(mark=SIGNIFICANT) if file.baseline else ""
    gains += ROWS if _judges_rows(results) else ""
    return LEGEND.format(
        seeds=(SEEDS if len(file.seeds) > 1 else ONE_SEED).format(", ".join(map(str, file.seeds))),
        protocol=PROTOCOLS[file.protocol] + gains + changed,
        machine=f"Measured with {software}, torch {versions['torch']}, {_where_and_when(results)}.",
    )


def _where_and_when(results: Results) -> str:
    """Say on which machines and days the cells ran; the table may be written elsewhere, and later."""
    records = [record for _, record in results.records if "failed" not in record]
    records = records or [results.circumstances]
    # Records of the time before they said so have neither.
    described = (record.get("machine") or {"machine": "unknown"} for record in records)
    machines = Counter(_name(", ".join(f"{key} {value}" for key, value in one.items())) for one in described)
    days = sorted({record["created"][:10] for record in records if "created" in record})
    where = " and ".join(
        f"{machine} ({count} of {len(records)} runs)" if len(machines) > 1 else machine
        for machine, count in machines.items()
    )
    return ", ".join([where, " to ".join(dict.fromkeys([days[0], days[-1]]))] if days else [where])


def _table(results: Results, column: str) -> str:
    file = results.suite.file
    entries = [results.entries[row, column] for row in file.rows]
    marks = {score: _marks([e.scores.get(score) for e in entries]) for score in SCORES}
    judged = ["k-NN"] if _judges_rows(results) else []  # cells of before do not
    costs = ["features, s", "after, s", "peak MiB"]
    lines = [["", *(score.upper() for score in SCORES), *_gain_head(file), *judged, *costs]]
    for position, entry in enumerate(entries):
        line = [_name(entry.row), *(marks[score][position] for score in SCORES)]
        line += _gain_cell(file, entry.row, results.gains(entry.row, column))
        line += [_figure(entry.knn_accuracy)] * len(judged)
        line += [_seconds(entry.feature_seconds), _seconds(entry.seconds), f"{entry.peak_memory_mib or ''}"]
        lines.append(line)
    return _grid(lines)


def _judges_rows(results: Results) -> bool:
    return any(entry.knn_accuracy for entry in results.entries.values())


def _differences(results: Results, column: str) -> str:
    """List what rows have resolved otherwise than their baselines, so that no gain is taken for another."""
    lines = []
    for row in results.suite.file.rows:
        baseline = _name(results.suite.file.baseline_of(row) or "")
        said = [
            f"{each.setting} is {_name(each.value)} (in {baseline} {_name(each.baseline)})"
            + (f" with seed {', '.join(map(str, each.seeds))}" if each.seeds else "")
            for each in results.differences(row, column)
        ]
        lines += [f"- {_name(row)}: {', '.join(said)}"] if said else []
    return "\n".join([DIFFERENCES, "", *lines]) if lines else ""


def _average(results: Results) -> str:
    """Compute means over data sets with scores, for the rows that have scores on all of them."""
    file = results.suite.file
    rows, data = file.rows, file.data
    columns = [column for column in data if any(results.entries[row, column].scores for row in rows)]
    left_out = [_name(column) for column in data if column not in columns]
    averages: dict[str, dict[str, Spread]] = {}
    for row in rows:
        entries = [results.entries[row, column] for column in columns]
        if entries and all(entry.scores for entry in entries):
            averages[row] = {s: _over_data([entry.scores[s] for entry in entries]) for s in SCORES}
    marks = {score: _marks([average[score] for average in averages.values()]) for score in SCORES}
    lines = [["", *(score.upper() for score in SCORES), *_gain_head(file)]]
    for position, row in enumerate(averages):
        gain = _gain_cell(file, row, results.average_gains(row, columns))
        lines.append([_name(row), *(marks[score][position] for score in SCORES), *gain])
    if not averages:
        return "No row has scores on all data sets."
    note = f"Without {', '.join(left_out)}, where no row has scores.\n\n" if left_out else ""
    return note + _grid(lines)


def _over_data(spreads: list[Spread]) -> Spread:
    """Compute the mean of means and its deviation, if seeds vary independently on each data set."""
    n = len(spreads)
    variances = [spread.std**2 for spread in spreads if spread.std is not None]
    std = sum(variances) ** 0.5 / n if len(variances) == n else None
    return Spread(sum(spread.mean for spread in spreads) / n, std)


def _marks(spreads: list[Spread | None]) -> list[str]:
    """Format each figure; mark the best one and those within one standard deviation of it."""
    best = max((s for s in spreads if s), key=lambda s: s.mean, default=None)
    texts = []
    for spread in spreads:
        text = _figure(spread)
        if spread and best and spread.mean == best.mean:
            text = f"**{text}**"
        elif spread and best and spread.mean >= best.mean - (best.std or 0):
            text = f"*{text}*"
        texts.append(text)
    return texts


def _figure(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{spread.mean:.1f}" + (f" ± {spread.std:.1f}" if spread.std is not None else "")


def _gain_head(file: SuiteFile) -> list[str]:
    """Return the heading of the column of gains; the name of the baseline is in it if there is one only."""
    if not file.baseline:
        return []
    return ["gain" if isinstance(file.baseline, dict) else f"gain over {_name(file.baseline)}"]


def _gain_cell(file: SuiteFile, row: str, gains: Mapping[str, Gain]) -> list[str]:
    if not file.baseline:
        return []
    baseline = file.baseline_of(row)
    if baseline is None:
        return [""]
    if not gains:
        return ["–"]
    figures = " / ".join(_signed(gains[score]) for score in SCORES)
    return [f"{figures} over {_name(baseline)}" if isinstance(file.baseline, dict) else figures]


def _signed(gain: Gain) -> str:
    figure = f"{gain.mean:+.1f}" + (f" ± {gain.error:.1f}" if gain.error is not None else "")
    return figure + SIGNIFICANT * gain.significant


def _seconds(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.mean:.0f}" if spread.mean >= 10 else f"{spread.mean:.1f}"


def _published(results: Results, column: str) -> str:
    figures = [figure for figure in results.suite.file.published if figure.data == column]
    if not figures:
        return ""
    lines = [["published", *(score.upper() for score in SCORES), "protocol", "source"]]
    for f in figures:
        values = [f"{value:g}" if value is not None else "–" for value in (f.acc, f.nmi, f.ari)]
        lines.append([f.row, *values, f.protocol, f.source])
    return _grid(lines)


def _failures(results: Results) -> str:
    failed = [entry for entry in results.entries.values() if entry.failed]
    lines = [f"- {_where(entry)}: {_name(reason)}" for entry in failed for reason in entry.failed]
    return "\n".join(["## What failed", "", *lines]) if lines else ""


def _warnings(results: Results) -> str:
    lines = [
        f"- {_where(entry)}: {_name(text)}" for entry in results.entries.values() for text in entry.warnings
    ]
    return "\n".join(["## Warnings of the runs", "", *lines]) if lines else ""


def _where(entry: Entry) -> str:
    return f"{_name(entry.row)} on {_name(entry.column)}"


def _name(text: str) -> str:
    """Write any text on one line of Markdown, with markup characters escaped."""
    anywhere = r"[\\`*\[\]<]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|(?<!\S)#"
    first = r"^[>+~-]|^\d+[.)]"
    line = " ".join(text.split())
    return re.sub(f"{anywhere}|{first}", lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)


def _grid(lines: list[list[str]]) -> str:
    head, *body = ([_cell_text(text) for text in line] for line in lines)
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def _cell_text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _commands(results: Results) -> str:
    """List the commands that repeat each row: for every data set, the run of the first seed."""
    first, *others = results.suite.file.seeds
    code = "\n".join(
        " ".join(f"# {cell.row}, {cell.column}".split()) + "\n" + command(cell, record.get("threads"))
        for cell, record in results.records
        if cell.seed == first
    )
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", code))])
    also = f"For the other seeds: --seed {', '.join(map(str, others))}." if others else ""
    return "\n\n".join(filter(None, ["## Commands", also, f"{fence}sh\n{code}\n{fence}"]))


def command(cell: Cell, threads: int | None = None) -> str:
    """Return the ``ebsc run`` command that repeats a cell, with the same number of threads."""
    words = [f"OMP_NUM_THREADS={threads}"] * (threads is not None) + ["ebsc run"]
    for setting, value in flattened(cell.settings):
        flag, kind = FLAGS.get(setting, ("", None))
        if type(value) is kind and str(value).isprintable():
            words += [flag, _quoted(str(value), setting in PATHS)]
        else:
            words += ["--set", _quoted(f"{setting}={_toml(value)}", setting in PATHS)]
    return " ".join(words)


def _toml(value: Any) -> str:
    """Write a value for ``--set``: as TOML, or as a bare word if that is read as the same text."""
    if isinstance(value, str) and value.isprintable() and parse_settings([f"v={value}"]) == {"v": value}:
        return value
    if isinstance(value, Mapping):  # an empty table; other tables are flattened
        return "{}"
    lines = tomli_w.dumps({"v": value}).partition("=")[2].split("\n")  # a long array has several
    return " ".join(line.strip() for line in lines if line.strip())


def _quoted(text: str, path: bool) -> str:
    """Quote text for a shell; in a path, leave the environment variables of a suite to the shell."""
    if not path or os.path.expandvars(text) == text:
        return shlex.quote(text)
    parts = re.split(r"(\$\w+|\$\{[^}]*\})", text, flags=re.ASCII)
    variable = [os.path.expandvars(part) != part for part in parts]
    return "".join(f'"{p}"' if v else shlex.quote(p) for p, v in zip(parts, variable, strict=True) if p)
