"""Imitation losses: distances between the expert's class distributions on the original and on the reconstruction.

Axis legend: B images, m classes, H and W pixels. S = softmax(logits) over m (Eq. 3), S_hat from the reconstruction.

Every loss is a mean over images and pixels, in nats (natural logarithm), weighted if weights (B, H, W) of mean 1 are
given. For a part of a larger batch, with `images` in all, it is the share of the part in the mean over the batch: the
losses of all parts add up to the loss of the batch, and the gradients are the same floats.

The original is a fixed target: gradients go to `logits_hat` alone. They are computed in closed form, because the losses
run at every training step. Logits of -inf (probability 0) and of any finite size give finite values and gradients.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.errors import ConfigError, ShapeError, unknown_name

ImitationKind = Literal["jsd", "kld", "ce"]

LOG_FLOOR = -104.0  # exp(-104) is 0 in float32: the logarithm of an impossible class stays finite


class _ClosedForm(torch.autograd.Function):
    """Function whose value and gradient are given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = x.dtype
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_value).to(ctx.dtype), None, None


def with_gradient(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar `value` whose gradient with respect to `x` is `gradient`, a tensor of the shape of `x`."""
    result: Tensor = _ClosedForm.apply(x, value, gradient)  # type: ignore[no-untyped-call]
    return result


def _log_probabilities(logits_BmHW: Tensor) -> Tensor:
    logits = logits_BmHW.detach()
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.log_softmax(logits, dim=1).clamp_(min=LOG_FLOOR)


def _check(logits_BmHW: Tensor, logits_hat_BmHW: Tensor, images: int | None) -> int:
    """Check the shapes; return the number of pixels that the mean is over, B H W or those of `images`."""
    if logits_BmHW.ndim != 4 or logits_BmHW.shape != logits_hat_BmHW.shape:
        expected = f"expected logits (B, m, H, W) of one shape, the original's is {tuple(logits_BmHW.shape)}"
        raise ShapeError(expected, got=logits_hat_BmHW.shape)
    return logits_BmHW.shape[2] * logits_BmHW.shape[3] * (images or len(logits_BmHW))


def jensen_shannon(
    logits_BmHW: Tensor, logits_hat_BmHW: Tensor, weights_BHW: Tensor | None = None, *, images: int | None = None
) -> Tensor:
    """Return D_JS(S || S_hat) of Eq. 5, a scalar in [0, ln 2] nats.

    Raises:
        ShapeError: the logits are not (B, m, H, W) of one shape.
    """
    n_pixels = _check(logits_BmHW, logits_hat_BmHW, images)
    with torch.no_grad():
        log_s, log_s_hat = _log_probabilities(logits_BmHW), _log_probabilities(logits_hat_BmHW)
        s, s_hat = log_s.exp(), log_s_hat.exp()
        difference = log_s.sub_(log_s_hat)
        # M = (S + S_hat) / 2, so log(S_hat / M) = ln 2 - softplus(log S - log S_hat); log(S / M) is that + difference.
        log_ratio_hat = math.log(2.0) - F.softplus(difference)
        weighted_hat = s_hat * log_ratio_hat
        kl_hat_B1HW = weighted_hat.sum(dim=1, keepdim=True)
        kl_BmHW = s * difference.add_(log_ratio_hat)
        value = 0.5 * (_sum(kl_hat_B1HW, weights_BHW) + _sum(kl_BmHW, weights_BHW)) / n_pixels
        gradient = weighted_hat.addcmul_(s_hat, kl_hat_B1HW, value=-1.0).mul_(0.5 / n_pixels)
    return _attach(logits_hat_BmHW, value, gradient, weights_BHW)


def kullback_leibler(
    logits_BmHW: Tensor, logits_hat_BmHW: Tensor, weights_BHW: Tensor | None = None, *, images: int | None = None
) -> Tensor:
    """Return D_KL(S || S_hat) of Eq. 7, a scalar >= 0 in nats; a class of probability 0 in S_hat costs at most 104.

    Raises:
        ShapeError: the logits are not (B, m, H, W) of one shape.
    """
    n_pixels = _check(logits_BmHW, logits_hat_BmHW, images)
    with torch.no_grad():
        log_s, log_s_hat = _log_probabilities(logits_BmHW), _log_probabilities(logits_hat_BmHW)
        s = log_s.exp()
        value = _sum(s * log_s.sub_(log_s_hat), weights_BHW) / n_pixels
        gradient = log_s_hat.exp_().sub_(s).div_(n_pixels)
    return _attach(logits_hat_BmHW, value, gradient, weights_BHW)


def cross_entropy(
    logits_BmHW: Tensor, logits_hat_BmHW: Tensor, weights_BHW: Tensor | None = None, *, images: int | None = None
) -> Tensor:
    """Return CE(S || S_hat) of Eq. 6, a scalar >= 0 in nats, with the most probable class of S as the target.

    The paper does not define CE further. The target is the argmax because section III-D contrasts the distribution that
    KLD learns from with "the one-hot label in Cross-Entropy". With S itself as the target, CE would be KLD plus a
    constant and have the same gradients, but the paper's results differ.

    Raises:
        ShapeError: the logits are not (B, m, H, W) of one shape.
    """
    n_pixels = _check(logits_BmHW, logits_hat_BmHW, images)
    with torch.no_grad():
        target_B1HW = logits_BmHW.argmax(dim=1, keepdim=True)
        log_s_hat = _log_probabilities(logits_hat_BmHW)
        value = -_sum(log_s_hat.gather(1, target_B1HW), weights_BHW) / n_pixels
        gradient = log_s_hat.exp_().scatter_add_(1, target_B1HW, -torch.ones_like(log_s_hat[:, :1])).div_(n_pixels)
    return _attach(logits_hat_BmHW, value, gradient, weights_BHW)


def _sum(x_BmHW: Tensor, weights_BHW: Tensor | None) -> Tensor:
    return x_BmHW.sum() if weights_BHW is None else (x_BmHW * weights_BHW.unsqueeze(1)).sum()


def _attach(logits_hat_BmHW: Tensor, value: Tensor, gradient_BmHW: Tensor, weights_BHW: Tensor | None) -> Tensor:
    if weights_BHW is not None:
        gradient_BmHW = gradient_BmHW * weights_BHW.unsqueeze(1)
    return with_gradient(logits_hat_BmHW, value, gradient_BmHW)


def imitation_loss(
    kind: ImitationKind,
    logits_BmHW: Tensor,
    logits_hat_BmHW: Tensor,
    weights_BHW: Tensor | None = None,
    *,
    images: int | None = None,
) -> Tensor:
    """Return the imitation loss named `kind`: `jsd` (Eq. 5), `kld` (Eq. 7) or `ce` (Eq. 6).

    Raises:
        ConfigError: an unknown kind.
        ShapeError: the logits are not (B, m, H, W) of one shape.
    """
    losses = {"jsd": jensen_shannon, "kld": kullback_leibler, "ce": cross_entropy}
    if kind not in losses:
        raise ConfigError(unknown_name("imitation loss", kind, losses))
    return losses[kind](logits_BmHW, logits_hat_BmHW, weights_BHW, images=images)


def mean_squared_error(x_B3HW: Tensor, x_hat_B3HW: Tensor) -> Tensor:
    """Return the first term of Eq. 4: the mean over all images, channels and pixels, on the [0, 1] scale."""
    _check_pixels(x_B3HW, x_hat_B3HW)
    return F.mse_loss(x_hat_B3HW, x_B3HW)


def mean_absolute_error(x_B3HW: Tensor, x_hat_B3HW: Tensor) -> Tensor:
    """Return the pixel term of Esser et al. (2021): the mean over images, channels and pixels, on the [0, 1] scale."""
    _check_pixels(x_B3HW, x_hat_B3HW)
    return F.l1_loss(x_hat_B3HW, x_B3HW)


def _check_pixels(x_B3HW: Tensor, x_hat_B3HW: Tensor) -> None:
    if x_B3HW.shape != x_hat_B3HW.shape:
        raise ShapeError(f"expected a reconstruction of shape {tuple(x_B3HW.shape)}", got=x_hat_B3HW.shape)
