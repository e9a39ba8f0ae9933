"""Components of others that go wrong in a run: a line says which, and nothing passes for a result."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from ebsc_cli.process import leave
from ebsc_core import EBSC
from ebsc_core.plugins.faults import guarded
from ebsc_core.utils.errors import EbscError
from support.plugin_sources import HEAD

RUN = ("run", "--data", "digits", "--limit", "40", "--epochs", "0", "--n-clusters", "3", "--no-report")
PIXELS = ("--backbone", "identity")

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution ``acme`` with one component ``x``: of a hook, by the source of its class."""

    def write(hook: str, base: str, body: str) -> None:
        site = tmp_path / "site"
        info = site / "acme-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[ebsc]\nacme = acme_parts\n")
        (site / "acme_parts.py").write_text(
            f"{HEAD}import numpy as np\nimport torch\nimport ebsc_core\n"
            f"class X({base}):\n{body}"
            f"@hookimpl\ndef {hook}():\n    yield ComponentSpec('x', 'For a test.', X)\n"
        )
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "acme_parts", raising=False)

    return write


def clusterer(fit_predict: str) -> tuple[str, str, str]:
    body = (
        "    consumes = 'features'\n"
        "    def __init__(self, options, n_clusters, seed): pass\n"
        f"    def fit_predict(self, data):\n        {fit_predict}\n"
    )
    return "ebsc_clusterers", "ebsc_core.Clusterer", body


@pytest.mark.parametrize("status", ["0", "3", ""])
def test_a_component_that_ends_the_program_is_an_error(
    ebsc, install: Install, tmp_path: Path, status: str
) -> None:
    install(*clusterer(f"raise SystemExit({status})"))
    done = ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    assert done.code == 2
    assert "error: a component ended the program (SystemExit" in done.err
    assert "acme_parts.py, line 9); it must return" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "attribute",
    [
        "embedding_ = np.full((len(data), 2), np.nan)",
        "embedding_ = np.full((len(data), 2), 'a')",
        "eigenvalues_ = np.full(5, np.nan)",
        "eigenvalues_ = ['a'] * 5",
        "eigenvalues_ = 0.5",
        "eigenvalues_ = np.ones((5, 5))",
    ],
)
def test_what_a_clusterer_says_of_the_graph_is_finite(
    ebsc, install: Install, tmp_path: Path, attribute: str
) -> None:
    install(*clusterer(f"self.{attribute}; return np.arange(len(data)) % 3"))
    done = ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    name = attribute.partition(" ")[0]
    assert done.err.endswith(f"clusterer 'x' of acme 1.0: its {name} must be finite numbers\n")
    assert done.code == 2
    assert not (tmp_path / "out").exists()


def test_an_error_in_its_code_names_it(ebsc, install: Install) -> None:
    install(*clusterer("raise KeyError('no luck')"))
    with pytest.raises(KeyError, match="no luck") as caught:
        ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    (note,) = caught.value.__notes__
    assert note.startswith("it was raised in clusterer 'x' of acme 1.0 (")
    assert note.endswith("acme_parts.py, line 9); `ebsc plugins check` tests components")


@pytest.mark.parametrize(
    ("hook", "base", "method", "words"),
    [
        ("ebsc_clusterers", "Clusterer", "fit_predict(self)", "fit_predict(data)"),
        (
            "ebsc_coefficient_models",
            "CoefficientModel",
            "coefficients(self, queries, *, encoded)",
            "coefficients(queries, encoded, top_k, own)",
        ),
        ("ebsc_backbones", "Backbone", "forward(self)", "forward(images)"),
        ("ebsc_objectives", "Objective", "loss(self, a, b, c)", "loss(a, b)"),
    ],
)
def test_a_method_with_other_arguments_is_named(
    ebsc, install: Install, hook: str, base: str, method: str, words: str
) -> None:
    start = "" if base == "Objective" else "    def __init__(self, *given): super().__init__()\n"
    install(hook, f"ebsc_core.{base}", f"    width = 4\n{start}    def {method}: pass\n")
    section = {"ebsc_coefficient_models": "coefficients"}.get(hook, hook.removeprefix("ebsc_").rstrip("s"))
    network = () if base == "Backbone" else ("--backbone", "resnet18") if base == "Objective" else PIXELS
    done = ebsc(*RUN, *network, "--epochs", "1", f"--{section}", "x")
    name = method.partition("(")[0]
    assert f"'x' of acme 1.0: a run calls {words}, and its {name} does not allow it: " in done.err
    assert "acme_parts.py, line " in done.err
    assert (done.code, done.err.splitlines()[-1][:12]) == (2, "ebsc: error:")


@pytest.mark.parametrize(
    ("express", "said"),
    [
        ("return queries", "express returned a Tensor, not ebsc_core.Expression"),
        ("return ebsc_core.Expression(0.5, self.w)", "a reconstruction that is a float, not a tensor"),
        ("return ebsc_core.Expression(queries[:, 1:], self.w)", "of shape (40, 63), not (40, 64)"),
        ("return ebsc_core.Expression(queries, queries)", "a penalty of shape (40, 64), not ()"),
        ("return ebsc_core.Expression(queries, self.w.detach())", "its loss has no gradient"),
        ("return ebsc_core.Expression(queries, self.w / 0)", "its loss is not finite before it has trained"),
    ],
)
def test_what_a_model_trains_with_is_checked(ebsc, install: Install, express: str, said: str) -> None:
    body = (
        "    def __init__(self, options, width):\n"
        "        super().__init__()\n"
        "        self.w = torch.nn.Parameter(torch.tensor(1.0))\n"
        f"    def express(self, queries, dictionary, own):\n        {express}\n"
        "    def loss(self, queries, expression): return expression.penalty\n"
        "    def coefficients(self, queries, encoded, top_k, own): pass\n"
    )
    install("ebsc_coefficient_models", "ebsc_core.TrainableCoefficientModel", body)
    done = ebsc(*RUN, *PIXELS, "--coefficients", "x", "--set", "refine.steps=2")
    last = done.err.splitlines()[-1]
    assert last.startswith("ebsc: error: coefficient model 'x' of acme 1.0: ")
    assert said in last
    assert done.code == 2


def test_an_error_in_other_code_does_not(ebsc, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(*clusterer("return np.arange(len(data)) % 3"))

    def fail(*arguments: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("ebsc_core.runs.run.write_run", fail)
    with pytest.raises(KeyError, match="ours") as caught:
        ebsc(*RUN, *PIXELS, "--clusterer", "x", "--out", "out")
    assert not getattr(caught.value, "__notes__", [])


LEAVES = "raise SystemExit(0)", "error: a component ended the program (SystemExit: 0 in "
MAY_NOT_READ = (
    "raise PermissionError(13, 'Permission denied', 'mine.bin')",
    "error: Permission denied: mine.bin; choose another path, free disk space or change the permissions; "
    "it was raised in ",
)


def backbone(forward: str) -> tuple[str, str, str]:
    """Return a backbone that does something only where there is a file ``fail``."""
    body = (
        "    width = 64\n"
        "    def __init__(self, options, info): super().__init__()\n"
        "    def forward(self, x):\n"
        f"        import os\n        if os.path.exists('fail'): {forward}\n        return x.flatten(1)\n"
    )
    return "ebsc_backbones", "ebsc_core.Backbone", body


@pytest.mark.parametrize(("forward", "said"), [LEAVES, MAY_NOT_READ])
def test_commands_that_are_no_runs_are_guarded_too(
    ebsc, install: Install, tmp_path: Path, forward: str, said: str
) -> None:
    install(*backbone(forward))
    run, predict = (*RUN, "--backbone", "x", "--cache", "none"), ("predict", "run", "digits", "-o", "out.csv")
    extract = ("features", "extract", "digits", "--limit", "40", "--backbone", "x", "-o", "out.h5")
    assert ebsc(*run, "--out", "run").code == 0
    before = set(tmp_path.iterdir())
    (tmp_path / "fail").touch()
    for command in ((*run, "--out", "out"), predict, extract):
        done = ebsc(*command)
        assert done.code == 2
        assert said in done.err.splitlines()[-1]
        assert "acme_parts.py" in done.err.splitlines()[-1]
        assert set(tmp_path.iterdir()) == {*before, tmp_path / "fail"}
    with pytest.raises((EbscError, PermissionError)):
        EBSC.load(tmp_path / "run").predict(np.zeros((2, 8, 8)))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("return 1.5", "its loss is a float, not a tensor"),
        ("pass", "its loss is a NoneType, not a tensor"),
        ("return (a - b).square().sum(1)", "its loss has shape (20,); it must be a scalar"),
        ("return (a - b).detach().square().mean()", "its loss has no gradient, so nothing can be trained"),
    ],
)
def test_a_loss_that_cannot_be_minimised_is_refused(ebsc, install: Install, loss: str, said: str) -> None:
    body = f"    def loss(self, a, b):\n        {loss}\n"
    install("ebsc_objectives", "ebsc_core.Objective", body)
    done = ebsc(*RUN, "--backbone", "resnet18", "--epochs", "1", "--batch-size", "20", "--objective", "x")
    assert done.err.splitlines()[-1] == f"ebsc: error: objective 'x' of acme 1.0: {said}"
    assert done.code == 2


def test_options_without_the_widths_of_a_projector_are_refused(ebsc, install: Install) -> None:
    body = "    Options = ebsc_core.Options\n    def loss(self, a, b): return (a - b).square().mean()\n"
    install("ebsc_objectives", "ebsc_core.Objective", body)
    done = ebsc(*RUN, "--backbone", "resnet18", "--epochs", "1", "--objective", "x")
    assert "its Options have no hidden and width for the projector; derive them from" in done.err
    assert done.code == 2


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        ("return self.net(x.flatten(1))[:, 1:]", "features of shape (40, 3) for 40 images and a width of 4"),
        ("return self.net(x.flatten(1)).double()", "features of type torch.float64, not torch.float32"),
        ("return (self.net(x.flatten(1)) > 0).int()", "features of type torch.int32, not torch.float32"),
        ("return x.flatten(1), None", "a tuple, not a tensor"),
    ],
)
def test_features_that_do_not_fit_are_refused(ebsc, install: Install, forward: str, said: str) -> None:
    body = (
        "    width = 4\n"
        "    def __init__(self, options, info):\n"
        "        super().__init__()\n"
        "        self.net = torch.nn.Linear(64, 4)\n"
        f"    def forward(self, x):\n        {forward}\n"
    )
    install("ebsc_backbones", "ebsc_core.Backbone", body)
    done = ebsc(*RUN, "--epochs", "1", "--batch-size", "20", "--backbone", "x")
    start = "ebsc: error: backbone 'x' of acme 1.0: forward returned "
    assert done.err.splitlines()[-1].startswith(start + said)
    assert done.code == 2


def test_features_that_are_not_finite_are_its_own_fault_if_nothing_trains(ebsc, install: Install) -> None:
    body = (
        "    width = 64\n"
        "    def __init__(self, options, info): super().__init__()\n"
        "    def forward(self, x): return x.flatten(1) * float('nan')\n"
    )
    install("ebsc_backbones", "ebsc_core.Backbone", body)
    done = ebsc(*RUN, "--backbone", "x")
    assert "features are not finite; backbone 'x' of acme 1.0 makes them without any training" in done.err
    assert done.code == 2


@pytest.mark.parametrize(
    ("ids", "labels", "said"),
    [
        ("['a'] * 40", "None", "two images have the id 'a'; each needs one of its own"),
        ("list(range(40))", "None", "the id 0 is a int, not a text"),
        ("list(map(str, range(40)))", "np.ones(40)", "labels are of type float64, not int64"),
    ],
)
def test_names_and_labels_that_nothing_can_read_are_refused(
    ebsc, install: Install, tmp_path: Path, ids: str, labels: str, said: str
) -> None:
    body = (
        "    def __new__(cls, options, context):\n"
        "        pixels = torch.arange(40 * 16, dtype=torch.int64).remainder(256).to(torch.uint8)\n"
        f"        return ebsc_core.ImageSet('mine', pixels.view(40, 1, 4, 4), {ids}, {labels})\n"
    )
    install("ebsc_datasets", "", body)
    done = ebsc(*RUN, *PIXELS, "--data", "x", "--out", "out")
    assert done.err.splitlines()[-1] == f"ebsc: error: data set 'x' of acme 1.0: {said}"
    assert done.code == 2
    assert not (tmp_path / "out").exists()


def test_an_observer_with_other_arguments_is_called_by_its_class(ebsc, install: Install) -> None:
    body = (
        "    @hookimpl\n    def ebsc_run_finished(self, run): pass\n    def __init__(self, options): pass\n"
    )
    install("ebsc_observers", "", body)
    done = ebsc(*RUN, *PIXELS, "--observer", "x")
    assert done.code == 2
    assert "observer 'x' of acme 1.0 cannot be used: Plugin 'X' for hook 'ebsc_run_finished'" in done.err


def test_a_reader_that_has_gone_is_no_fault_of_a_component() -> None:
    command = [sys.executable, "-m", "ebsc_cli", "plugins", "list"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=environment) as ebsc:
        assert ebsc.stdout
        assert ebsc.stderr
        ebsc.stdout.close()
        assert "component" not in ebsc.stderr.read()
    assert ebsc.returncode != 0


def test_the_command_line_itself_may_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atexit, "register", lambda *_: None)
    with pytest.raises(SystemExit), guarded(may_end="ebsc_cli"):
        leave(3)
