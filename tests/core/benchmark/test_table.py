"""The table: what is marked, what is gained, and that no name can break it."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy.stats import ttest_1samp

from ebsc_core.benchmark.results import Results
from ebsc_core.benchmark.table import html, markdown

MakeResults = Callable[..., Results]

SUITE = """title = "T"
seeds = [0, 1]
[data.a]
[rows.low]
[rows.near]
[rows.best]
"""


def line(text: str, row: str, section: str = "## a") -> list[str]:
    """The cells of a row of the table in one section."""
    part = text.split(f"{section}\n")[1].split("\n## ")[0]
    (found,) = [found for found in part.splitlines() if found.startswith(f"| {row} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def outcome(row: str, column: str, seed: int) -> float:
    """The best is 0.9 ± 0.0283, the second 0.88 ± 0.0424."""
    return {"low": 0.5, "near": 0.85 + 0.06 * seed, "best": 0.88 + 0.04 * seed}[row]


def test_settings_that_are_left_out_stand_above_the_figures(results: MakeResults) -> None:
    mixed = SUITE.replace("[data.a]", '[data.a]\ndata.name = "x"\n[data.b]\nfeatures.path = "b.npy"')
    text = markdown(results(mixed.replace("[rows.low]", "[rows.low]\ntrain.epochs = 0"), outcome))
    images, features = text.split("## a\n")[1].split("## b\n")
    assert "left out" not in images
    assert "left out (train.epochs); rows 'low' and 'near' and 'best' are the same run" in features
    assert features.index("left out") < features.index("| low |")


def test_it_says_where_and_when_its_cells_ran(results: MakeResults) -> None:
    found = results(SUITE, outcome)
    mine = {"machine": {"processor": "P", "cpus": 2}, "created": "2026-01-02T03:04:05+00:00"}
    other = {"machine": {"processor": "Q", "cpus": 8, "gpu": "G"}, "created": "2026-01-05T03:04:05+00:00"}
    for ran, said in {
        (6, 0): "processor P, cpus 2, 2026-01-02.",
        (4, 2): "processor P, cpus 2 (4 of 6 runs) and processor Q, cpus 8, gpu G (2 of 6 runs), "
        "2026-01-02 to 2026-01-05.",
        (5, 0): "processor P, cpus 2 (5 of 6 runs) and machine unknown (1 of 6 runs), 2026-01-02.",
        (0, 0): "machine unknown.",
    }.items():
        told = [mine] * ran[0] + [other] * ran[1] + [{}] * (6 - sum(ran))
        records = [(cell, record | more) for (cell, record), more in zip(found.records, told, strict=True)]
        text = markdown(Results(found.suite, "source", records))
        assert text.partition("torch ")[2].partition(", ")[2].startswith(f"{said}\n")


class TestMarks:
    def test_the_best_is_bold_and_those_within_one_deviation_of_it_italic(self, results: MakeResults) -> None:
        text = markdown(results(SUITE, outcome))
        assert line(text, "best")[1:4] == ["**90.0 ± 2.8**", "**45.0 ± 1.4**", "**22.5 ± 0.7**"]
        assert line(text, "near")[1:4] == ["*88.0 ± 4.2*", "*44.0 ± 2.1*", "*22.0 ± 1.1*"]
        assert line(text, "low")[1:4] == ["50.0 ± 0.0", "25.0 ± 0.0", "12.5 ± 0.0"]

    def test_it_is_the_deviation_of_the_best_that_counts(self, results: MakeResults) -> None:
        wide = {"low": (0.1, 0.9), "near": (0.88, 0.88), "best": (0.9, 0.9)}
        text = markdown(results(SUITE, lambda row, column, seed: wide[row][seed]))
        assert line(text, "near")[1] == "88.0 ± 0.0"
        assert line(text, "low")[1] == "50.0 ± 56.6"

    def test_equals_are_all_bold(self, results: MakeResults) -> None:
        text = markdown(results(SUITE, lambda row, column, seed: 0.5))
        assert {line(text, row)[1] for row in ("low", "near", "best")} == {"**50.0 ± 0.0**"}

    def test_a_single_seed_has_no_deviation(self, results: MakeResults) -> None:
        text = markdown(
            results(SUITE.replace("[0, 1]", "[5]"), lambda row, column, seed: outcome(row, "", 0))
        )
        assert "±" not in text
        assert "of seed 5" in text
        assert line(text, "best")[1] == "**88.0**"
        assert line(text, "near")[1] == "85.0"

    def test_a_row_that_failed_is_neither_best_nor_missing(self, results: MakeResults) -> None:
        text = markdown(
            results(SUITE, lambda row, column, seed: "no memory" if row == "best" else outcome(row, "", seed))
        )
        assert line(text, "best")[1:] == ["–", "–", "–", "–", "–", ""]
        assert line(text, "near")[1] == "**88.0 ± 4.2**"
        assert "## What failed\n\n- best on a: no memory" in text

    def test_without_labels_costs_remain(self, results: MakeResults, metrics: Callable[..., object]) -> None:
        assert line(markdown(results(SUITE, lambda *cell: metrics(None))), "low")[1:] == [
            *["–"] * 3,
            "8.0",
            "2.0",
            "400",
        ]


class TestGain:
    def test_is_the_mean_of_paired_differences_with_its_standard_error(self, results: MakeResults) -> None:
        text = markdown(results(SUITE, outcome, baseline="low"))
        assert "gain over low" in text
        assert "standard error" in text
        # 35 and 41 points: their deviation is 4.2, over the root of two pairs 3.0.
        assert line(text, "near")[4] == "+38.0 ± 3.0 / +19.0 ± 1.5 / +9.5 ± 0.7"
        assert line(text, "low")[4] == ""
        other = markdown(results(SUITE, outcome, baseline="best"))
        assert line(other, "low")[4] == "-40.0 ± 2.0† / -20.0 ± 1.0† / -10.0 ± 0.5†"

    @pytest.mark.parametrize(("third", "marked"), [(0.02, False), (0.04, True)])
    def test_is_marked_where_a_t_test_over_its_pairs_finds_it(
        self, results: MakeResults, third: float, marked: bool
    ) -> None:
        """With three pairs, 3.5 errors may be chance, though they are more than two; 4.3 are the limit."""
        differences = (0.04, 0.06, third)
        found = results(
            SUITE.replace("[0, 1]", "[0, 1, 2]"),
            lambda row, _, seed: 0.3 * seed / 10 + (differences[seed] if row == "near" else 0),
            baseline="low",
        )
        gain = found.gains("near", "a")["acc"]
        assert gain.p == pytest.approx(ttest_1samp(differences, 0).pvalue)
        assert gain.error is not None
        assert gain.mean > 2 * gain.error
        assert line(markdown(found), "near")[4].count("†") == 3 * marked
        assert "†: significant at 5 %" in markdown(found)

    def test_is_of_pairs_of_one_seed(self, results: MakeResults) -> None:
        """What both rows owe to the seed is in neither the gain nor its error; equal pairs are no test."""
        text = markdown(
            results(SUITE, lambda row, _, seed: 0.3 * seed + (row == "near") / 10, baseline="low")
        )
        assert line(text, "near")[1] == "**25.0 ± 21.2**"
        assert line(text, "near")[4] == "+10.0 ± 0.0 / +5.0 ± 0.0 / +2.5 ± 0.0"

    def test_has_no_error_with_a_single_seed(self, results: MakeResults) -> None:
        one = SUITE.replace("[0, 1]", "[1]")
        assert line(markdown(results(one, outcome, baseline="low")), "near")[4] == "+41.0 / +20.5 / +10.2"

    def test_may_be_over_a_baseline_of_each_row(self, results: MakeResults) -> None:
        table = '[baseline]\nnear = "low"\nbest = "near"\n'
        found = results(SUITE + "[data.b]\n" + table, outcome)
        text = markdown(found)
        assert line(text, "near")[4] == "+38.0 ± 3.0 / +19.0 ± 1.5 / +9.5 ± 0.7 over low"
        assert line(text, "best")[4] == "+2.0 ± 1.0 / +1.0 ± 0.5 / +0.5 ± 0.2 over near"
        assert line(text, "low")[4] == ""
        average = line(text, "near", TestAverage.SECTION)[4]
        assert average == "+38.0 ± 0.0 / +19.0 ± 0.0 / +9.5 ± 0.0 over low"
        entry = next(entry for entry in found.as_dict()["table"] if entry["row"] == "best")
        assert entry["baseline"] == "near"
        assert entry["gains"]["acc"] == pytest.approx({"mean": 2.0, "error": 1.0, "p": 0.295167})

    def test_over_data_sets_its_error_is_that_of_the_data_sets(self, results: MakeResults) -> None:
        gain = {"a": 0.1, "b": 0.3}
        text = markdown(
            results(
                SUITE + "[data.b]\n",
                lambda row, column, seed: 0.3 + 0.1 * seed + (row == "near") * gain[column],
                baseline="low",
            )
        )
        average = line(text, "near", TestAverage.SECTION)[4]
        assert average == "+20.0 ± 10.0 / +10.0 ± 5.0 / +5.0 ± 2.5"

    def test_needs_a_baseline(self, results: MakeResults) -> None:
        text = markdown(results(SUITE, outcome))
        assert "gain" not in text.lower()

    @pytest.mark.parametrize("failed", ["low", "near"])
    def test_is_not_counted_from_a_failure(self, results: MakeResults, failed: str) -> None:
        """Not even if only one seed failed: the mean over the others would mislead."""
        found = results(
            SUITE,
            lambda row, column, seed: "x" if (row, seed) == (failed, 1) else outcome(row, "", seed),
            baseline="low",
        )
        assert line(markdown(found), "near")[4] == "–"


class TestAverage:
    SECTION = "## Average over the data sets"

    def test_is_the_mean_of_the_means(self, results: MakeResults) -> None:
        both = {"a": (0.4, 0.6), "b": (0.7, 0.9)}
        found = results(SUITE + "[data.b]\n", lambda row, column, seed: both[column][seed])
        # Deviations 14.1 of each; of the mean of two independent ones, 14.1 / sqrt(2).
        assert line(markdown(found), "low", self.SECTION)[1] == "**65.0 ± 10.0**"

    def test_leaves_out_rows_that_failed_anywhere(self, results: MakeResults) -> None:
        found = results(SUITE + "[data.b]\n", lambda row, *_: "x" if (row, _[0]) == ("best", "b") else 0.5)
        part = markdown(found).split(self.SECTION)[1].split("\n## ")[0]
        assert "| near |" in part
        assert "best" not in part

    def test_leaves_out_data_without_classes_and_says_so(
        self, results: MakeResults, metrics: Callable[..., object]
    ) -> None:
        text = SUITE + "[data.b]\n[data.c_]\n"
        figures = {"a": metrics(0.4), "b": metrics(0.6), "c_": metrics(None)}
        part = markdown(results(text, lambda row, column, seed: figures[column])).split(self.SECTION)[1]
        assert part.startswith("\n\nWithout c\\_, where no row has scores.\n\n|")
        assert "| low | **50.0 ± 0.0** |" in part
        assert "Without" not in markdown(results(text, lambda *cell: 0.5))

    def test_says_so_if_none_is_left(self, results: MakeResults) -> None:
        found = results(SUITE + "[data.b]\n", lambda row, column, seed: "x")
        assert "No row has scores on all data sets." in markdown(found)

    def test_of_one_data_set_is_not_shown(self, results: MakeResults) -> None:
        assert "Average" not in markdown(results(SUITE, outcome))


def test_published_figures_stand_beside_with_protocol_and_source(results: MakeResults) -> None:
    published = '[[published]]\nrow = "EnSC"\ndata = "a"\nacc = 93.25\nnmi = 90\nprotocol = "train-test"\n'
    text = markdown(results(SUITE + published + 'source = "a paper, table 2"\n', outcome))
    assert line(text, "EnSC") == ["EnSC", "93.25", "90", "–", "train-test", "a paper, table 2"]
    assert line(text, "best")[1].startswith("**90.0")  # they do not take part in the marking


@pytest.mark.parametrize(("protocol", "said"), [("all", "on all images"), ("train-test", "held-out")])
def test_the_legend_says_how_was_scored(results: MakeResults, protocol: str, said: str) -> None:
    assert said in markdown(results(f'protocol = "{protocol}"\n{SUITE}', outcome))


HOSTILE = [
    "<script>alert(1)</script>",
    "</table><img src=x onerror=alert(1)>",
    "a|b",
    r"back\|slash",
    "two\nlines\n# heading",
    "**bold** _em_ `code`",
    "[link](javascript:alert(1))",
    "![image](http://example.org/x.png)",
    "&lt;b&gt; &copy;",
    "```\nfence",
    "{braces} %s {0}",
    "| --- | --- |",
    "<!-- comment",
    "top_k 2*3*4",
]


class Page(HTMLParser):
    """The tags of a page, and the text of each cell of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.headings: list[str] = []
        self.inside: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self.inside = self.cells
        if tag in ("h1", "h2"):
            self.headings.append("")
            self.inside = self.headings

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "h1", "h2"):
            self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside is not None:
            self.inside[-1] += data


ALLOWED = {"html", "meta", "title", "style", "h1", "h2", "p", "strong", "em", "ul", "li", "pre", "code"}
ALLOWED |= {"table", "thead", "tbody", "tr", "th", "td"}


def check(results: MakeResults, name: str) -> None:
    tree = {
        "title": name,
        "seeds": [0],
        "baseline": name,
        "data": {name: {}, "plain": {}},
        "rows": {name: {"top_k": 3}, "plain": {}},
        "published": [{"row": "p", "data": name, "protocol": "x", "source": "y"}],
    }
    found = results(
        tomli_w.dumps(tree), lambda row, column, seed: name if (row, column) == (name, "plain") else 0.5
    )
    page, shown = Page(html(found)), " ".join(name.split())
    assert set(page.tags) <= ALLOWED
    assert page.headings[:3] == [shown, shown, "plain"]
    assert page.cells.count(shown) == 2  # its row on both data sets
    assert page.cells.count(f"gain over {shown}") == 3  # and in the averages
    text = markdown(found)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    fences = [token for token in tokens if token.type == "fence"]
    assert len(fences) == 1
    commands = [command for command in fences[0].content.splitlines() if not command.startswith("#")]
    assert all(command.startswith("ebsc run ") for command in commands)
    assert len(commands) == 4
    assert [token.tag for token in tokens if token.type == "table_open"] == ["table"] * 4


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_and_nothing_else(results: MakeResults, name: str) -> None:
    check(results, name)


@given(st.text("ab |*_`<>&;#-\\[]()!\n~:.1'\"", min_size=1).filter(lambda text: text.strip()))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_is_any_name(results: MakeResults, name: str) -> None:
    check(results, name)


def test_the_author_s_paragraph_is_markdown_without_tags(results: MakeResults) -> None:
    about = 'about = "See **this** [paper](https://example.org). <b>x</b> <script>y</script>"\n'
    page = html(results(about + SUITE, outcome))
    assert '<strong>this</strong> <a href="https://example.org">paper</a>' in page
    assert "<script" not in page
    assert "<b>" not in page
