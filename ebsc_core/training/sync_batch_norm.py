"""Batch norm over the whole batch, where each process holds a share of it.

Without it two processes would train another network than one does: each image would be normalised by its own
share only. ``nn.SyncBatchNorm`` does this on CUDA alone, and not for batch norms that do more than normalise.
"""

from __future__ import annotations

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ebsc_core.utils.distributed import DistributedContext
from ebsc_core.utils.errors import PartError

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncedBatchNorm(_BatchNorm):
    """A batch norm whose statistics in training are those of all processes' rows.

    Made by :func:`sync_norms` alone, out of a batch norm whose weights, buffers and submodules it keeps; the
    latter, an activation for instance, are applied afterwards.
    """

    distributed: DistributedContext

    def forward(self, rows: Tensor) -> Tensor:
        """Rows ``(B, C, …)`` normalised; the statistics, of ``count`` times B rows, in float32 or finer."""
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
        """Anything goes that the batch norm before took."""

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, n: int) -> None:
        """Move the running statistics, as every batch norm does: with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * n / max(n - 1, 1)).to(self.running_var.dtype), share)


def sync_norms(module: nn.Module, distributed: DistributedContext) -> None:
    """Have every batch norm of ``module`` count the rows of all processes; names and weights stay.

    Raises
    ------
    PartError
        If there is a kind of batch norm whose own steps are not known here.
    """
    on_cuda = any(parameter.is_cuda for parameter in module.parameters())
    for name, norm in module.named_modules():
        if not isinstance(norm, _BatchNorm) or isinstance(norm, nn.SyncBatchNorm):
            continue
        if type(norm) not in (*PLAIN, BatchNormAct2d, SyncedBatchNorm):
            raise PartError(
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
