"""Eqs. 1 to 8 of the paper, written again in NumPy from the text, against the package on random tensors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gosvae.losses import imitation_loss, mean_squared_error
from gosvae.quantizers import VectorQuantizer
from gosvae.recipes import load_recipe
from gosvae.training.codecs import TrainableRecipe
from tiny import perceptual

Array = npt.NDArray[np.float64]
BETA = 0.25


def softmax(logits_BmHW: Array) -> Array:
    """Eq. 3."""
    e = np.exp(logits_BmHW - logits_BmHW.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def nearest(z_BDhw: Array, codes_KD: Array) -> npt.NDArray[np.int64]:
    """Eq. 1, one position at a time."""
    batch, _, height, width = z_BDhw.shape
    k = np.zeros((batch, height, width), dtype=np.int64)
    for b, i, j in np.ndindex(*k.shape):
        k[b, i, j] = np.argmin([np.linalg.norm(z_BDhw[b, :, i, j] - e) for e in codes_KD])
    return k


def chosen(k_Bhw: npt.NDArray[np.int64], codes_KD: Array) -> Array:
    """Eq. 2."""
    return np.moveaxis(codes_KD[k_Bhw], 3, 1)


def kld(s: Array, s_hat: Array) -> float:
    """Mean over images and pixels of sum p log(p / q), with 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(s > 0, s * (np.log(s) - np.log(s_hat)), 0.0).sum(axis=1).mean())


def jsd(s: Array, s_hat: Array) -> float:
    """Under Eq. 5."""
    m = (s + s_hat) / 2
    return kld(s, m) / 2 + kld(s_hat, m) / 2


def ce(s: Array, s_hat: Array) -> float:
    """Eq. 6 with the one-hot label of S."""
    one_hot = np.moveaxis(np.eye(s.shape[1])[s.argmax(axis=1)], 3, 1)
    return float(-(one_hot * np.log(s_hat)).sum(axis=1).mean())


DIVERGENCES: dict[str, Callable[[Array, Array], float]] = {"jsd": jsd, "kld": kld, "ce": ce}


def numeric_gradient(f: Callable[[Array], float], x: Array, step: float = 1e-6) -> Array:
    gradient = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        gradient[at] = (f(up) - f(down)) / (2 * step)
    return gradient


@pytest.fixture
def vq() -> tuple[VectorQuantizer, Array, Array]:
    """A quantizer in double precision, its codes and a latent."""
    rng = np.random.default_rng(3)
    codes_KD, z_BDhw = rng.normal(size=(7, 3)), rng.normal(size=(2, 3, 2, 3))
    quantizer = VectorQuantizer(7, 3).double()
    quantizer.codebook_KD.data.copy_(torch.from_numpy(codes_KD))
    return quantizer, codes_KD, z_BDhw


def test_eq_1_and_2_nearest_code(vq: tuple[VectorQuantizer, Array, Array]) -> None:
    quantizer, codes_KD, z_BDhw = vq
    result = quantizer(torch.from_numpy(z_BDhw))
    k_Bhw = nearest(z_BDhw, codes_KD)
    np.testing.assert_array_equal(result.indices_Bhw.numpy(), k_Bhw)
    np.testing.assert_array_equal(result.z_q_BDhw.detach().numpy(), chosen(k_Bhw, codes_KD))


def test_eq_4_values_and_where_the_gradients_stop(vq: tuple[VectorQuantizer, Array, Array]) -> None:
    quantizer, codes_KD, z_BDhw = vq
    k_Bhw = nearest(z_BDhw, codes_KD)

    def squared(z: Array, codes: Array) -> float:
        return float(((z - chosen(k_Bhw, codes)) ** 2).mean())

    for term, of_codes in [("codebook", True), ("commitment", False)]:
        z = torch.from_numpy(z_BDhw.copy()).requires_grad_()
        quantizer.zero_grad()
        value = quantizer(z).terms[term]
        assert value.item() == pytest.approx(squared(z_BDhw, codes_KD))
        (value + 0 * z.sum() + 0 * quantizer.codebook_KD.sum()).backward()
        to_codes = numeric_gradient(lambda codes: squared(z_BDhw, codes), codes_KD) if of_codes else 0 * codes_KD
        to_z = 0 * z_BDhw if of_codes else numeric_gradient(lambda z: squared(z, codes_KD), z_BDhw)
        np.testing.assert_allclose(quantizer.codebook_KD.grad.numpy(), to_codes, atol=1e-8)
        np.testing.assert_allclose(z.grad.numpy(), to_z, atol=1e-8)


def test_eq_4_total_reaches_the_encoder_straight_through(vq: tuple[VectorQuantizer, Array, Array]) -> None:
    """With x_hat = a z_q, the encoder gets dMSE/dz_q as it is, plus beta times the commitment's own gradient."""
    quantizer, codes_KD, z_BDhw = vq
    a, x = np.random.default_rng(4).normal(size=(2, *z_BDhw.shape))
    z = torch.from_numpy(z_BDhw.copy()).requires_grad_()
    result = quantizer(z)
    mse = mean_squared_error(torch.from_numpy(x), torch.from_numpy(a) * result.z_q_BDhw)
    total = mse + result.terms["codebook"] + BETA * result.terms["commitment"]
    total.backward()
    e = chosen(nearest(z_BDhw, codes_KD), codes_KD)
    difference = ((z_BDhw - e) ** 2).mean()
    assert total.item() == pytest.approx(((x - a * e) ** 2).mean() + (1 + BETA) * difference)
    through_decoder = 2 * a * (a * e - x) / x.size
    np.testing.assert_allclose(z.grad.numpy(), through_decoder + BETA * 2 * (z_BDhw - e) / x.size)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_eqs_5_to_7_value_and_gradient(kind: str) -> None:
    rng = np.random.default_rng(5)
    logits, logits_hat = rng.normal(scale=2.0, size=(2, 2, 4, 2, 3))
    s, divergence = softmax(logits), DIVERGENCES[kind]
    ours_hat = torch.from_numpy(logits_hat.copy()).requires_grad_()
    loss = imitation_loss(kind, torch.from_numpy(logits), ours_hat)
    assert loss.item() == pytest.approx(divergence(s, softmax(logits_hat)))
    (3 * loss).backward()
    expected = 3 * numeric_gradient(lambda logits_hat: divergence(s, softmax(logits_hat)), logits_hat)
    np.testing.assert_allclose(ours_hat.grad.numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_eqs_5_to_7_in_float32(kind: str) -> None:
    logits, logits_hat = np.random.default_rng(6).normal(scale=5.0, size=(2, 3, 11, 8, 9))
    loss = imitation_loss(kind, torch.from_numpy(logits).float(), torch.from_numpy(logits_hat).float())
    assert loss.item() == pytest.approx(DIVERGENCES[kind](softmax(logits), softmax(logits_hat)), rel=1e-5)


def lpips(x_B3HW: Array, x_hat_B3HW: Array, kernels_O3kk: Array, bias_O: Array) -> float:
    """LPIPS v0.1 on the features of one 3x3 convolution with ReLU, with heads of one; the mean over images."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])

    def features(image_B3HW: Array) -> Array:
        x = (2 * image_B3HW - 1 - shift[:, None, None]) / scale[:, None, None]
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        f = np.maximum(np.einsum("bchwij,ocij->bohw", windows, kernels_O3kk) + bias_O[:, None, None], 0.0)
        return f / np.sqrt((f**2).sum(axis=1, keepdims=True) + 1e-10)

    return float(((features(x_B3HW) - features(x_hat_B3HW)) ** 2).sum(axis=1).mean(axis=(1, 2)).mean())


def test_eq_8_has_lpips_in_place_of_the_squared_error(vq: tuple[VectorQuantizer, Array, Array]) -> None:
    """With x_hat = 1/2 + z_q / 10, the encoder gets dLPIPS/dx_hat / 10, plus beta times the commitment's gradient."""
    quantizer, codes_KD, z_BDhw = vq
    recipe = load_recipe("vqvae-lpips")
    assert isinstance(recipe, TrainableRecipe)
    (stage,) = recipe.stages
    distance = perceptual().double()
    convolution = distance.network.state_dict().values()
    kernels_O3kk, bias_O = (value.numpy() for value in convolution)
    x = np.random.default_rng(8).uniform(size=z_BDhw.shape)
    z = torch.from_numpy(z_BDhw.copy()).requires_grad_()
    result = quantizer(z)
    terms = {**result.terms, "lpips": distance(torch.from_numpy(x), 0.5 + result.z_q_BDhw / 10).mean()}
    total = torch.stack([stage.weights[name] * terms[name] for name in stage.weights]).sum()
    total.backward()
    e = chosen(nearest(z_BDhw, codes_KD), codes_KD)
    ours = lpips(x, 0.5 + e / 10, kernels_O3kk, bias_O)
    assert ours > 1e-3
    # The norms of Eq. 8 are sums over D = 64 channels, the terms here means: the weights make up for it.
    assert (stage.weights["codebook"], stage.weights["commitment"]) == (64.0, 64.0 * BETA)
    assert total.item() == pytest.approx(ours + 64 * (1 + BETA) * ((z_BDhw - e) ** 2).mean(), rel=1e-5)
    through_decoder = numeric_gradient(lambda x_hat: lpips(x, x_hat, kernels_O3kk, bias_O), 0.5 + e / 10) / 10
    np.testing.assert_allclose(z.grad.numpy(), through_decoder + 64 * BETA * 2 * (z_BDhw - e) / x.size, atol=1e-6)
