"""Define checks, contracts and suites: how the checks of one kind of component run, and their results."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ebsc_core.plugins.registry import Kind
from ebsc_core.testing.subject import Subject
from ebsc_core.utils.errors import EbscError, told


class ContractBroken(AssertionError):
    """Report that a component breaks the contract of its kind; the text says what the check saw."""


class NotApplicable(Exception):
    """Report that a check has nothing to check; the text says why."""


def require(holds: bool, seen: str) -> None:
    """Raise :class:`ContractBroken` with the text ``seen`` unless the contract ``holds``."""
    if not holds:
        raise ContractBroken(seen)


@dataclass(frozen=True)
class Check:
    """Describe one thing that every component of a kind must do."""

    id: str
    """A short id with hyphens between words; pytest and ``ebsc plugins check`` show it."""
    contract: str
    """What a component must do."""
    why: str
    """What goes wrong otherwise."""
    run: Callable[[Any], None]
    """The function of the check. It gets the component (a :class:`Subject`) and raises
    :class:`ContractBroken` or :class:`NotApplicable`."""
    basic: bool
    """Whether the later checks make no sense if this one fails."""


@dataclass(frozen=True)
class Contract:
    """Hold all checks of one kind of component, in the order in which they run."""

    kind: Kind
    subject: type[Subject]
    """The class that presents the component to the checks."""
    checks: list[Check] = field(default_factory=list)

    def check(self, run: Callable[[Any], None]) -> Callable[[Any], None]:
        """Add a function as a check: its name is the id, its docstring the contract and the reason."""
        return self._add(run, basic=False)

    def basic(self, run: Callable[[Any], None]) -> Callable[[Any], None]:
        """Add a function as a basic check: if it fails, later checks make no sense."""
        return self._add(run, basic=True)

    def _add(self, run: Callable[[Any], None], basic: bool) -> Callable[[Any], None]:
        paragraphs = (inspect.getdoc(run) or "").split("\n\n")
        contract, why = (" ".join(text.split()) for text in paragraphs)
        self.checks.append(Check(run.__name__.replace("_", "-"), contract, why, run, basic))
        return run


@dataclass(frozen=True)
class Result:
    """Hold the result of one check of one component."""

    check: Check
    status: Literal["passed", "failed", "not run"]
    seen: str = ""
    """What the check saw if it failed, or why it was not run."""
    error: BaseException | None = None
    """The error that the component raised, if any."""

    def explanation(self) -> str:
        """Return the contract, the reason for it, and what the check saw, one line each."""
        return f"contract: {self.check.contract}\nwhy: {self.check.why}\nseen: {self.seen}"


class Suite:
    """Run the checks of one component. Each check runs once, when its result is first needed.

    Parameters
    ----------
    contract : Contract
        The contract of the component's kind.
    find : callable
        Returns the component. It is called when the first check runs, because an error in it is the user's,
        not the component's.
    """

    def __init__(self, contract: Contract, find: Callable[[], Subject]) -> None:
        self.contract, self._find = contract, find
        self._results: dict[str, Result] = {}

    @cached_property
    def subject(self) -> Subject:
        """The component under test."""
        return self._find()

    def results(self) -> Iterator[Result]:
        """Yield the results in order, each as soon as it is available."""
        return map(self.result, self.contract.checks)

    def result(self, check: Check) -> Result:
        """Return the result of one check; basic checks before it run first.

        Raises
        ------
        EbscError
            If the component cannot be found.
        """
        if check.id not in self._results:
            self._results[check.id] = self._blocked(check) or self._run(check)
        return self._results[check.id]

    def _blocked(self, check: Check) -> Result | None:
        for earlier in self.contract.checks:
            if earlier is check:
                return None
            if earlier.basic and self.result(earlier).status == "failed":
                return Result(check, "not run", f"{earlier.id} failed, so this check has no meaning")
        return None

    def _run(self, check: Check) -> Result:
        import torch

        subject = self.subject
        try:
            # Output of the component must not mix with the report.
            with torch.random.fork_rng(), redirect_stdout(sys.stderr):
                torch.manual_seed(0)
                check.run(subject)
        except NotApplicable as why:
            return Result(check, "not run", str(why))
        except ContractBroken as broken:
            return Result(check, "failed", str(broken))
        except EbscError as error:
            return Result(check, "failed", f"it was refused: {error}", error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # any error of the component is a result of the check
            where = _where(error, subject.choice.component.package)
            return Result(check, "failed", f"it raised {told(error)}{where}", error)
        return Result(check, "passed")


def _where(error: BaseException, package: str) -> str:
    """Return the last line before an error that is in the package of the component.

    If there is none, it is the last one that belongs neither to this framework nor to torch.
    """
    import torch

    frames = list(traceback.walk_tb(error.__traceback__))
    within = [(f, n) for f, n in frames if str(f.f_globals.get("__name__")).partition(".")[0] == package]
    others = ("<", *(f"{Path(file).parent}{os.sep}" for file in (Path(__file__).parent, torch.__file__)))
    foreign = [(f, n) for f, n in frames if not f.f_code.co_filename.startswith(others)]
    for frame, line in (within or foreign)[-1:]:
        return f" ({frame.f_code.co_filename}, line {line})"
    return ""
