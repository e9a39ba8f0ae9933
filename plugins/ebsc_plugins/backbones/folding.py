"""Fold batch norm into the convolutions before it, for networks that no longer train."""

from __future__ import annotations

from collections import Counter

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Exactly these: a subclass may compute with its weights before it applies them (weight standardisation).
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)


class _Tracer(fx.Tracer):
    """Trace a model, but not into what is folded."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in CONVOLUTIONS + NORMS or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norm(model: nn.Module) -> int:
    """Replace each convolution and the batch norm after it by one convolution, in place.

    In evaluation mode a batch norm is an affine map of each channel, which a convolution can do by itself. A
    pair is folded if the convolution's output goes nowhere else, and if both are used once.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.

    Returns
    -------
    int
        The number of pairs. It is 0 if torch.fx cannot trace the model, which then stays as it is.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception:  # models whose forward looks at values; each fails in its own way
        return 0
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = [
        (node.args[0].target, node.target)
        for node in graph.nodes
        if _is_one(node, NORMS, modules, calls)
        and _is_one(node.args[0], CONVOLUTIONS, modules, calls)
        and len(node.args[0].users) == 1
    ]
    for convolution, norm in pairs:
        folded = fuse_conv_bn_eval(modules[convolution], modules[norm])
        model.set_submodule(convolution, folded)
        model.set_submodule(norm, getattr(modules[norm], "act", nn.Identity()))
    return len(pairs)


def _is_one(node: fx.Node, kinds: tuple[type, ...], modules: dict[str, nn.Module], calls: Counter) -> bool:
    """Say whether a node is the only call of a module of these types."""
    return node.op == "call_module" and type(modules[str(node.target)]) in kinds and calls[node.target] == 1
