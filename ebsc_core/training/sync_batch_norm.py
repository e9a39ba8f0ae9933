"""Compute batch norm over the whole batch if each process holds a share of it.

Otherwise each image would be normalised by the statistics of its own share, and two processes would train
another network than one does. ``nn.SyncBatchNorm`` works on CUDA only, and not for batch norms that do more
than normalise.
"""

from __future__ import annotations

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.errors import ComponentError

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncedBatchNorm(_BatchNorm):
    """Normalise by the statistics of all processes' rows during training.

    :func:`sync_norms` makes it from a batch norm and keeps that norm's weights, buffers and submodules. The
    submodules, for instance an activation, are applied after the normalisation.
    """

    distributed: DistributedContext

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise rows ``(B, C, …)``; statistics of all processes' rows are in float32 or finer."""
        out = self._by_batch(rows) if self.training else super().forward(rows)
        for following in self.children():
            out = following(out)
        return out

    def _by_batch(self, rows: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (rows.ndim - 2))
        exact = rows.to(torch.promote_types(rows.dtype, torch.float32))
        spread, center = torch.var_mean(exact, [0, *range(2, rows.ndim)], correction=0)
        # One exchange: of equal shares, the total variance is the mean of theirs plus that of their means.
        spreads, centers = self.distributed.gather(torch.stack([spread, center])[None]).unbind(1)
        mean = centers.mean(0)
        variance = spreads.mean(0) + (centers - mean).square().mean(0)
        self._keep(mean, variance, self.distributed.count * rows.numel() // rows.shape[1])
        out = (exact - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = torch.addcmul(self.bias.view(shape), out, self.weight.view(shape))
        return out.to(rows.dtype)

    def _check_input_dim(self, rows: Tensor) -> None:
        """Accept every input that the original batch norm accepted."""

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, n: int) -> None:
        """Update the running statistics with the unbiased variance, as every batch norm does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * n / max(n - 1, 1)).to(self.running_var.dtype), share)


def sync_norms(module: nn.Module, distributed: DistributedContext) -> None:
    """Make every batch norm of ``module`` use the rows of all processes; names and weights stay.

    Raises
    ------
    ComponentError
        If a batch norm is of an unknown kind, which may do more than normalise.
    """
    on_cuda = any(parameter.is_cuda for parameter in module.parameters())
    for name, norm in module.named_modules():
        if not isinstance(norm, _BatchNorm) or isinstance(norm, nn.SyncBatchNorm):
            continue
        if type(norm) not in (*PLAIN, BatchNormAct2d, SyncedBatchNorm):
            raise ComponentError(
                f"{name} is a {type(norm).__name__}, a batch norm that cannot be computed over several "
                "processes; run in one, or choose another backbone"
            )
        # The module stays itself, with its hooks and whoever else refers to it, and computes otherwise.
        if type(norm) in PLAIN and on_cuda:
            norm.process_group = None  # type: ignore[assignment]  # all processes
            norm.__class__ = nn.SyncBatchNorm
        else:
            norm.distributed = distributed  # type: ignore[assignment]
            norm.__class__ = SyncedBatchNorm
