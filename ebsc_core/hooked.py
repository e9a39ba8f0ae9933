"""One plugin and its hooks: what it implements, and what it seems to have meant to."""

from __future__ import annotations

import inspect
from difflib import get_close_matches

import pluggy

from ebsc_core.plugins.hookspecs import ENTRY_POINT_GROUP, Hooks, RunHooks

PREFIX = "ebsc_"


def hooked(plugin: object, specs: type) -> pluggy.PluginManager:
    """A manager of its own for ``plugin``, so that its faults stay its own.

    Parameters
    ----------
    specs : type
        The class that declares its hooks: ``Hooks``, or of an observer ``RunHooks``.

    Raises
    ------
    TypeError
        If it implements none of them, one that there is not, or has a function named like one that is not
        marked; names the hook that was meant.
    pluggy.PluginValidationError
        If a hook takes arguments that it is not given.
    """
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(specs)
    manager.register(plugin)
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec() and not all(made.optionalhook for made in caller.get_hookimpls()):
            raise TypeError(f"there is no hook {caller.name!r}: {_meant(caller.name, specs)}")
    for name in dir(plugin):
        if (
            name.startswith(PREFIX)
            and (name in hook_names(specs) or _near(name, specs))
            and inspect.isroutine(inspect.getattr_static(plugin, name))
            and manager.parse_hookimpl_opts(plugin, name) is None
        ):
            raise TypeError(f"{name!r} is not marked with @hookimpl: {_meant(name, specs)}")
    if not callers:
        raise TypeError(f"it implements no hook; there are {', '.join(hook_names(specs))}")
    return manager


def hook_names(specs: type) -> list[str]:
    """The hooks that ``specs`` declares, in its order."""
    return [name for name in vars(specs) if name.startswith(PREFIX)]


def _meant(name: str, specs: type) -> str:
    if name in hook_names(specs):
        return "without the mark it is never called"
    if specs is Hooks and name in hook_names(RunHooks):
        return "it is a hook of observers, which are offered through ebsc_observers"
    near = _near(name, specs)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(hook_names(specs))}"


def _near(name: str, specs: type) -> list[str]:
    return get_close_matches(name, hook_names(specs), n=1, cutoff=0.8)
