"""The pytest door, the command and the page: what people see of the checks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ebsc_core import Clusterer, ComponentSpec, Options
from ebsc_core.plugins.kinds import REQUIRED, Kind
from ebsc_core.testing import clusterer_checks, coefficient_model_checks
from ebsc_core.testing.reference import markdown
from ebsc_core.testing.suites import contract_of, make_suite
from ebsc_core.utils.errors import ComponentError

ROOT = Path(__file__).resolve().parents[2]
Ebsc = Callable[..., tuple[int, str, str]]

PLUGIN = """
import numpy as np
from ebsc_core import Clusterer, ComponentSpec, Options


class Uneven(Clusterer):
    consumes = "features"

    def __init__(self, options: Options, n_clusters: int, seed: int) -> None:
        self.n_clusters = n_clusters

    def fit_predict(self, data):
        return np.arange(len(data), dtype=np.int64) * self.n_clusters // len(data)


SPEC = ComponentSpec("uneven", "By position.", Uneven)
"""


def outcomes(folder: Path, body: str) -> pytest.ExitCode | int:
    """How pytest ends on a test file of a plugin's author."""
    file = folder / f"{folder.name}.py"  # pytest imports a name once
    file.write_text(f"{PLUGIN}\nfrom ebsc_core.testing import clusterer_checks\n{body}\n")
    alone = [
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "-c",
        str(folder / "pytest.ini"),
        "--rootdir",
        str(folder),
    ]
    (folder / "pytest.ini").write_text("[pytest]\n")
    return pytest.main([*alone, "-v", "-rA", str(file)])


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> Path:
    """A distribution with a clusterer, as if it were installed; its module."""
    monkeypatch.syspath_prepend(folder)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ebsc]\n{name} = ebsc_test_{name}\n")
    module = folder / f"ebsc_test_{name}.py"
    hook = "from ebsc_core import hookimpl\n@hookimpl\ndef ebsc_clusterers():\n    yield SPEC\n"
    module.write_text(source + hook)
    return module


class TestPytest:
    def test_a_failure_tells_a_stranger_everything(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert outcomes(tmp_path, "test_contract = clusterer_checks(SPEC)") == pytest.ExitCode.TESTS_FAILED
        out = capsys.readouterr().out
        assert "::test_contract[label-shape] PASSED" in out
        assert "::test_contract[order-of-rows] FAILED" in out
        for said in (
            "contract: Find the same well-separated groups",
            "why: The order of images is arbitrary",
            "seen: ",
        ):
            assert said in out

    def test_an_expected_failure_with_a_reason(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        body = 'test_contract = clusterer_checks(SPEC, expected_failures={"order-of-rows": "by design"})'
        assert outcomes(tmp_path, body) == pytest.ExitCode.OK
        assert "XFAIL" in capsys.readouterr().out

    def test_an_expected_failure_that_passes_fails(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = '{"order-of-rows": "by design", "label-dtype": "was once"}'
        body = f"test_contract = clusterer_checks(SPEC, expected_failures={expected})"
        assert outcomes(tmp_path, body) == pytest.ExitCode.TESTS_FAILED
        assert "[XPASS(strict)] was once" in capsys.readouterr().out

    @pytest.mark.parametrize("reason", ["", "  ", None])
    def test_an_expected_failure_without_a_reason_is_an_error(self, reason: str) -> None:
        with pytest.raises(ComponentError, match="say why 'zero-on-self'"):
            coefficient_model_checks("knn", expected_failures={"zero-on-self": reason})

    def test_an_expected_failure_of_no_check_is_an_error(self) -> None:
        with pytest.raises(ComponentError, match=r"no check of a clusterer is called 'zero-on-self'"):
            clusterer_checks("spectral", expected_failures={"zero-on-self": "why not"})

    def test_an_unknown_part_is_the_authors_mistake(self) -> None:
        test = clusterer_checks("spectrl")
        with pytest.raises(ComponentError, match="did you mean spectral"):
            test(contract_of(Kind.CLUSTERER).checks[0])


class TestCommand:
    def test_a_sound_part(self, ebsc: Ebsc) -> None:
        code, out, _ = ebsc("plugins", "check", "knn")
        assert code == 0
        lines = out.splitlines()
        assert lines[0] == "knn (coefficient model)"
        assert "✓ zero-on-self" in lines
        assert any(line.startswith("– loss-falls: it does not train") for line in lines)
        assert len(lines) == 1 + len(contract_of(Kind.COEFFICIENTS).checks)

    def test_a_faulty_part(self, ebsc: Ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tmp_path, monkeypatch, "uneven", PLUGIN)
        code, out, err = ebsc("plugins", "check", "uneven")
        assert code == 1, err
        assert "✗ order-of-rows: shuffled rows get another partition" in out
        assert "why: The order of images is arbitrary" in out
        assert out.splitlines()[-1] == "1 failed"

    @pytest.mark.parametrize(
        ("name", "fault"), [("raises", "raise ValueError('luck')"), ("exits", "exit(0)")]
    )
    def test_what_a_part_raises_is_said_with_its_place(
        self, ebsc: Ebsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
    ) -> None:
        source = PLUGIN.replace("uneven", name).replace(
            "        return", f"        print('hi'); {fault}\n        return"
        )
        module = install(tmp_path, monkeypatch, name, source)
        line = next(i for i, text in enumerate(source.splitlines(), 1) if fault in text)
        code, out, _ = ebsc("plugins", "check", name, "--json")
        records = [json.loads(text) for text in out.splitlines()]
        assert code == 1
        (failed,) = (record["seen"] for record in records if record["status"] == "failed")
        assert f"({module}, line {line})" in failed

    def test_json(self, ebsc: Ebsc) -> None:
        code, out, _ = ebsc("plugins", "check", "digits", "--kind", "data", "--json")
        records = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert {record["check"] for record in records} == {c.id for c in contract_of(Kind.DATA).checks}
        assert {record["status"] for record in records} == {"passed"}

    def test_options_reach_the_part(self, ebsc: Ebsc) -> None:
        code, out, _ = ebsc("plugins", "check", "k-subspaces", "--set", "clusterer.dimension=40")
        assert code == 1
        assert "✗ label-shape: it was refused: clusterer.dimension is 40" in out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["spectrl"], "did you mean spectral"),
            (["knn", "--kind", "clusterer"], "no component is called 'knn'"),
            (["knn", "--set", "clusterer.dimension=4"], "options here begin with coefficients."),
            (["knn", "--set", "coefficients.weihgted=true"], "weighted"),
            (["simclr", "--set", "objective=3"], "'objective' is a section, not an option"),
        ],
    )
    def test_mistakes_are_one_line(self, ebsc: Ebsc, arguments: list[str], said: str) -> None:
        code, _, err = ebsc("plugins", "check", *arguments)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "plugins" / "checks.md").read_text(encoding="utf-8") == markdown()


def test_ids_are_unique_and_everything_is_said() -> None:
    for kind in REQUIRED:
        checks = contract_of(kind).checks
        assert len({check.id for check in checks}) == len(checks)
        assert all(check.contract.endswith(".") and check.why.endswith(".") for check in checks)


def test_checks_need_no_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from ebsc_core import ComponentSpec\n"
        "from ebsc_core.plugins.registry import Kind\n"
        "from ebsc_core.testing.suites import make_suite\n"
        "results = make_suite(Kind.COEFFICIENTS, ComponentSpec('none', 'None.', dict)).results()\n"
        "assert next(results).status == 'failed'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_of_a_library_is_placed_in_the_code_that_called_it() -> None:
    class Singular(Clusterer):
        consumes = "features"

        def __init__(self, options: Options, n_clusters: int, seed: int) -> None: ...

        def fit_predict(self, data: np.ndarray) -> np.ndarray:
            return np.linalg.inv(np.zeros((2, 2)))

    spec = ComponentSpec("singular", "For a test.", Singular)
    (failed,) = (r for r in make_suite(Kind.CLUSTERER, spec).results() if r.status == "failed")
    assert failed.seen.startswith(f"it raised LinAlgError: Singular matrix ({__file__}, line ")
