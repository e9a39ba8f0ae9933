"""What a check is, how the checks of one kind of part are run, and what comes of each."""

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
    """A part does not do what its kind of part must; the text says what was seen."""


class NotApplicable(Exception):
    """A check has nothing to look at; the text says why."""


def require(holds: bool, seen: str) -> None:
    """Raise :class:`ContractBroken` with what was seen unless the contract ``holds``."""
    if not holds:
        raise ContractBroken(seen)


@dataclass(frozen=True)
class Check:
    """One thing that every part of a kind must do."""

    id: str
    """Short, words joined by hyphens; how pytest and ``ebsc plugins check`` name it."""
    contract: str
    """What a part must do."""
    why: str
    """What goes wrong otherwise."""
    run: Callable[[Any], None]
    """Given the part (a :class:`Subject`), raises :class:`ContractBroken` or :class:`NotApplicable`."""
    basic: bool
    """Whether the checks after it make no sense where this one fails."""


@dataclass(frozen=True)
class Contract:
    """All checks of one kind of part, in the order they are run."""

    kind: Kind
    subject: type[Subject]
    """How the checks are given the part."""
    checks: list[Check] = field(default_factory=list)

    def check(self, run: Callable[[Any], None]) -> Callable[[Any], None]:
        """Take up a function as a check: its name is the id, its docstring the contract and why."""
        return self._add(run, basic=False)

    def basic(self, run: Callable[[Any], None]) -> Callable[[Any], None]:
        """Take up a function as a check without which those after it make no sense."""
        return self._add(run, basic=True)

    def _add(self, run: Callable[[Any], None], basic: bool) -> Callable[[Any], None]:
        paragraphs = (inspect.getdoc(run) or "").split("\n\n")
        contract, why = (" ".join(text.split()) for text in paragraphs)
        self.checks.append(Check(run.__name__.replace("_", "-"), contract, why, run, basic))
        return run


@dataclass(frozen=True)
class Result:
    """What came of one check of one part."""

    check: Check
    status: Literal["passed", "failed", "not run"]
    seen: str = ""
    """What was seen where it failed, or why it was not run."""
    error: BaseException | None = None
    """What the part raised, if it did."""

    def explanation(self) -> str:
        """The contract, why it matters and what was seen, a line each."""
        return f"contract: {self.check.contract}\nwhy: {self.check.why}\nseen: {self.seen}"


class Suite:
    """The checks of one part. Each is run once, when its result is first asked for.

    Parameters
    ----------
    contract : Contract
        That of the part's kind.
    find : callable
        Returns the part. Called when the first check is run: an error of it is the user's, not the part's.
    """

    def __init__(self, contract: Contract, find: Callable[[], Subject]) -> None:
        self.contract, self._find = contract, find
        self._results: dict[str, Result] = {}

    @cached_property
    def subject(self) -> Subject:
        """The part under test."""
        return self._find()

    def results(self) -> Iterator[Result]:
        """The results in order, each as soon as it is there."""
        return map(self.result, self.contract.checks)

    def result(self, check: Check) -> Result:
        """The result of one check, for which those it builds on are run, too.

        Raises
        ------
        EbscError
            If the part cannot be found.
        """
        if check.id not in self._results:
            self._results[check.id] = self._blocked(check) or self._run(check)
        return self._results[check.id]

    def _blocked(self, check: Check) -> Result | None:
        for earlier in self.contract.checks:
            if earlier is check:
                return None
            if earlier.basic and self.result(earlier).status == "failed":
                return Result(check, "not run", f"{earlier.id} failed, without which this says nothing")
        return None

    def _run(self, check: Check) -> Result:
        import torch

        subject = self.subject
        try:
            # What the part prints is not part of what is reported.
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
        except BaseException as error:  # whatever the part raises is what the check has seen
            return Result(check, "failed", f"it raised {told(error)}{_where(error)}", error)
        return Result(check, "passed")


def _where(error: BaseException) -> str:
    """The last line on the way to an error that is neither of this framework nor of torch."""
    import torch

    others = ("<", *(f"{Path(file).parent}{os.sep}" for file in (Path(__file__).parent, torch.__file__)))
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if not frame.filename.startswith(others)]
    return f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""
