"""The diffusion behind GESCO against its formulas, written again in NumPy or with other functions."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.config import parse
from gosvae.diffusion import Diffusion, DiffusionConfig, class_edges, degraded_map, guided, sample, semantic_map
from gosvae.errors import ConfigError, ShapeError
from gosvae.nn.semantic_unet import SemanticUNet, UNetConfig
from gosvae.nn.spade import SemanticCondition, SpadeGroupNorm
from gosvae.seeding import seed_everything, torch_generator

CLASSES = 5
TINY: dict[str, Any] = {
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention_strides": [2],
    "head_width": 8,
    "spade_width": 8,
    "class_count": CLASSES,
    "sampling_steps": 5,
}


def config(**more: Any) -> DiffusionConfig:
    """A small model."""
    return parse(DiffusionConfig, {**TINY, **more})


def network(settings: DiffusionConfig, seed: int = 0) -> SemanticUNet:
    """With random weights everywhere: also where training starts at zero."""
    seed_everything(seed)
    result = SemanticUNet(settings, settings.label_channels(settings.class_count))
    with torch.no_grad():
        for parameter in result.parameters():
            if parameter.ndim == 4 and not parameter.any():
                parameter.normal_(std=0.05)
    return result.eval().requires_grad_(False)


def classes(height: int = 16, width: int = 24, batch: int = 1) -> Tensor:
    """Blocks of random classes, (B, H, W)."""
    coarse = torch.randint(CLASSES, (batch, height // 4, width // 4), generator=torch_generator("classes", batch))
    return coarse.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)


def alpha_products(settings: DiffusionConfig) -> npt.NDArray[np.float64]:
    """Products of the alphas of the linear schedule (DDPM, section 4)."""
    assert settings.schedule == "linear"
    return np.cumprod(1.0 - np.linspace(1e-4, 0.02, settings.timesteps))


def test_spade_is_its_formula() -> None:
    seed_everything(3)
    norm = SpadeGroupNorm(8, 3, hidden=4)
    x, semantic = torch.randn(2, 8, 6, 10), torch.randn(2, 3, 12, 20)
    # Park et al. 2019, Eq. 1, with the statistics of a group: gcd(32, 8) = 8 groups of one channel.
    mean, deviation = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), keepdim=True, correction=0).add(1e-5).sqrt()
    hidden = F.conv2d(semantic[..., ::2, ::2], norm.shared.weight, norm.shared.bias, padding=1).clamp_min(0)
    gamma = F.conv2d(hidden, norm.scale.weight, norm.scale.bias, padding=1)
    beta = F.conv2d(hidden, norm.shift.weight, norm.shift.bias, padding=1)
    torch.testing.assert_close(norm(x, SemanticCondition(semantic)), (x - mean) / deviation * (1 + gamma) + beta)


def test_what_is_kept_of_the_map_changes_nothing_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = network(config()), []
    original = SpadeGroupNorm.modulation
    monkeypatch.setattr(SpadeGroupNorm, "modulation", lambda self, m: (calls.append(self), original(self, m))[1])
    x, t = torch.randn(1, 3, 16, 24), torch.tensor([7])
    semantic = semantic_map(classes(), CLASSES, edges=True)
    counts, outputs = [], []
    for keep_bytes in (0, 20_000, 2**30):
        condition = net.condition(semantic, keep_bytes=keep_bytes)
        calls.clear()
        outputs = [*outputs, net(x, t, condition), net(x, t, condition)]
        counts.append(len(calls))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=0)
    norms = sum(isinstance(m, SpadeGroupNorm) for m in net.modules())
    assert counts[0] == 2 * norms
    assert counts[2] == norms
    assert norms < counts[1] < 2 * norms


def test_edges_are_where_a_neighbour_differs() -> None:
    map_1HW = torch.tensor([[[0, 0, 1], [0, 0, 1], [2, 0, 0]]])
    expected = torch.tensor([[[[0, 1, 1], [1, 1, 1], [1, 1, 1]]]]).float()
    torch.testing.assert_close(class_edges(map_1HW), expected)
    with_edges = semantic_map(map_1HW, 3, edges=True)
    assert with_edges.shape == (1, 4, 3, 3)
    torch.testing.assert_close(with_edges[:, :3].sum(1), torch.ones(1, 3, 3))
    torch.testing.assert_close(with_edges[:, :3].argmax(1), map_1HW)
    assert semantic_map(map_1HW, 3, edges=False).shape == (1, 3, 3, 3)


def test_degraded_maps_are_noisy_or_missing_as_often_as_asked() -> None:
    maps = torch.ones(400, 2, 8, 8)
    shown = degraded_map(maps, (0.0, 0.5), 0.25, torch_generator("degraded"))
    missing = (shown == 0).all(dim=(1, 2, 3))
    assert 70 <= int(missing.sum()) <= 130
    deviations = (shown - 1)[~missing].std(dim=(1, 2, 3))
    assert 100 <= int((deviations == 0).sum()) <= 200
    assert ((deviations == 0) | ((deviations - 0.5).abs() < 0.15)).all()
    torch.testing.assert_close(degraded_map(maps, (0.0,), 0.0, torch_generator("any")), maps)


def test_noising_follows_the_closed_form() -> None:
    settings = config()
    generator = torch_generator("noising")
    x, noise = torch.rand(3, 3, 4, 4, generator=generator), torch.randn(3, 3, 4, 4, generator=generator)
    steps = torch.tensor([0, 400, 999])
    product = alpha_products(settings)[steps.numpy()].reshape(3, 1, 1, 1)
    expected = np.sqrt(product) * x.numpy() + np.sqrt(1 - product) * noise.numpy()
    np.testing.assert_allclose(Diffusion(settings).noised(x, noise, steps).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("prediction", ["noise", "image", "velocity"])
def test_a_perfect_prediction_gives_the_picture_and_no_loss(prediction: str) -> None:
    settings = config(prediction=prediction, learned_variance=False)
    diffusion = Diffusion(settings)
    generator = torch_generator("perfect")
    x, noise = torch.rand(3, 3, 4, 4, generator=generator) * 2 - 1, torch.randn(3, 3, 4, 4, generator=generator)
    steps = torch.tensor([3, 300, 900])
    noisy, target = diffusion.noised(x, noise, steps), diffusion.target(x, noise, steps)
    torch.testing.assert_close(diffusion.image(target, noisy, steps), x, atol=1e-3, rtol=0)
    assert float(diffusion.terms(target, x, noise, steps)["denoising"]) == 0.0
    expected = 0.25 * diffusion.loss_weights(steps).mean()
    torch.testing.assert_close(diffusion.terms(target + 0.5, x, noise, steps)["denoising"], expected)


@pytest.mark.parametrize("prediction", ["noise", "image", "velocity"])
def test_limited_weights_are_the_same_loss_of_the_picture(prediction: str) -> None:
    """Min-SNR (Hang et al. 2023): whatever is predicted, min(SNR, limit) times the square error of the picture."""
    settings = config(prediction=prediction, learned_variance=False)
    diffusion = Diffusion(settings, snr_limit=5.0)
    generator = torch_generator("limited")
    x, noise = torch.rand(1, 3, 4, 4, generator=generator), torch.randn(1, 3, 4, 4, generator=generator)
    for step in (50, 300, 800):
        steps = torch.tensor([step])
        off = diffusion.target(x, noise, steps) + 0.1 * torch.randn(1, 3, 4, 4, generator=generator)
        picture = diffusion.image(off, diffusion.noised(x, noise, steps), steps)
        product = alpha_products(settings)[step]
        expected = min(product / (1 - product), 5.0) * float((picture - x).square().mean())
        assert float(diffusion.terms(off, x, noise, steps)["denoising"]) == pytest.approx(expected, rel=1e-3)


def test_variance_term_is_the_divergence_of_two_gaussians() -> None:
    settings = config()
    diffusion = Diffusion(settings)
    generator = torch_generator("variance")
    x, noise = torch.rand(1, 3, 4, 4, generator=generator), torch.randn(1, 3, 4, 4, generator=generator)
    predicted = noise + 0.1 * torch.randn(1, 3, 4, 4, generator=generator)
    fraction = torch.full((1, 3, 4, 4), 0.3, requires_grad=True)
    step = 500
    terms = diffusion.terms(torch.cat([predicted, fraction], dim=1), x, noise, torch.tensor([step]))
    # DDPM, Eqs. 6 and 7, and Nichol and Dhariwal, Eq. 15, with PyTorch's own divergence.
    product, before = (float(alpha_products(settings)[t]) for t in (step, step - 1))
    beta = 1 - product / before
    low = beta * (1 - before) / (1 - product)
    noisy = math.sqrt(product) * x + math.sqrt(1 - product) * noise
    x_hat = (noisy - math.sqrt(1 - product) * predicted) / math.sqrt(product)
    by_clean, by_noisy = math.sqrt(before) * beta / (1 - product), math.sqrt(1 - beta) * (1 - before) / (1 - product)
    deviation = math.exp(0.5 * (0.65 * math.log(beta) + 0.35 * math.log(low)))
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(by_clean * x + by_noisy * noisy, math.sqrt(low)),
        torch.distributions.Normal(by_clean * x_hat + by_noisy * noisy, deviation),
    )
    assert terms["variance"].item() == pytest.approx(float(divergence.mean()) / math.log(2), rel=1e-3)
    terms["variance"].backward()  # type: ignore[no-untyped-call]
    assert fraction.grad is not None
    assert bool(fraction.grad.any())


def test_first_step_counts_the_bits_of_the_picture() -> None:
    diffusion = Diffusion(config())
    x = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    noise, steps = torch.zeros_like(x), torch.tensor([0])
    sure = diffusion.terms(torch.cat([noise, -torch.ones_like(x)], dim=1), x, noise, steps)["variance"]
    unsure = diffusion.terms(torch.cat([noise, 3 * torch.ones_like(x)], dim=1), x, noise, steps)["variance"]
    assert 0 <= float(sure) < float(unsure) < 20


class Perfect:
    """Knows the picture (in [-1, 1]) and so predicts the noise exactly; in place of a network."""

    def __init__(self, settings: DiffusionConfig, picture: Tensor) -> None:
        self.label_channels = settings.label_channels(settings.class_count)
        self._picture, self._products = picture, torch.from_numpy(alpha_products(settings))

    def condition(self, map_BLHW: Tensor, *, keep_bytes: int) -> Tensor:
        del keep_bytes
        return map_BLHW

    def __call__(self, x_B3HW: Tensor, timesteps_B: Tensor, condition: Tensor) -> Tensor:
        assert len(condition) == len(x_B3HW)
        product = self._products[timesteps_B].view(-1, 1, 1, 1)
        return (x_B3HW - product.sqrt() * self._picture) / (1 - product).sqrt()


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samplers_with_a_perfect_predictor_arrive_at_the_picture(sampler: str) -> None:
    settings = config(sampler=sampler, learned_variance=False, sampling_steps=20)
    picture = torch.rand(1, 3, 16, 24, generator=torch_generator("picture"))
    perfect = cast(Any, Perfect(settings, picture * 2 - 1))
    drawn = sample(perfect, settings, semantic_map(classes(), CLASSES, edges=True), [torch_generator("seed")])
    torch.testing.assert_close(drawn.float(), picture, atol=2e-3, rtol=0)


def test_guidance_of_one_is_the_conditional_prediction() -> None:
    generator = torch_generator("guidance")
    with_map, without = (torch.randn(1, 6, 4, 4, generator=generator) for _ in range(2))
    torch.testing.assert_close(guided(with_map, without, 1.0), with_map)
    twice = guided(with_map, without, 2.0)
    torch.testing.assert_close(twice[:, :3], 2 * with_map[:, :3] - without[:, :3])
    torch.testing.assert_close(twice[:, 3:], with_map[:, 3:])
    # Written as a sampler that guides, it draws what the one without guidance draws.
    plain = config(guidance=1.0, learned_variance=False, sampler="ddim")
    net, semantic = network(plain), semantic_map(classes(), CLASSES, edges=True)
    nearly = plain.model_copy(update={"guidance": 1.0 + 1e-6})
    drawn = [sample(net, settings, semantic, [torch_generator("seed")]) for settings in (plain, nearly)]
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("learned_variance", [True, False])
def test_sampling_depends_on_map_and_seed_alone(sampler: str, learned_variance: bool) -> None:
    settings = config(sampler=sampler, learned_variance=learned_variance, patch=2)
    net = network(settings)
    semantic = semantic_map(classes(), CLASSES, edges=True)
    first, again, other = (sample(net, settings, semantic, [torch_generator(seed)]) for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert first.shape == (1, 3, 16, 24)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert float((first - other).abs().mean()) > 0.01
    elsewhere = sample(net, settings, semantic.flip(-1), [torch_generator(1)])
    assert float((first - elsewhere).abs().mean()) > 1e-3


def test_maps_that_do_not_fit_are_refused() -> None:
    settings = config()
    net = network(settings)
    for map_BLHW in (torch.zeros(1, CLASSES + 1, 16, 23), torch.zeros(1, CLASSES, 16, 24)):
        with pytest.raises(ShapeError, match="multiples of 2"):
            sample(net, settings, map_BLHW, [torch_generator(0)])


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        net = network(config(checkpointing=checkpointing)).requires_grad_(True)
        x, t = torch.ones(1, 3, 16, 24), torch.tensor([5])
        net(x, t, net.condition(semantic_map(classes(), CLASSES, edges=True))).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_strides": [3]}, "no strides of the levels"),
        ({"multipliers": [1, 0], "attention_strides": []}, "at least 1"),
        ({"sampling_steps": 50, "timesteps": 20}, "more than timesteps"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**change)


def test_published_sizes() -> None:
    """674.71 M (Cityscapes: 35 classes and edges) and 681.33 M (ADE20K: 151 classes) of the paper's Tables I and II.

    The published code holds, in each block of the way down, a SPADE normalisation on 3 channels that its forward pass
    never runs. With those our network has its count to the last digit; without them it has what is used.
    """
    for class_count, edges, used_m, published_m in ((35, True, 653.98, 674.71), (151, False, 660.61, 681.33)):
        settings = UNetConfig(edges=edges)
        with torch.device("meta"):
            net = SemanticUNet(settings, settings.label_channels(class_count))
        used = sum(p.numel() for p in net.parameters())
        assert used / 1e6 == pytest.approx(used_m, abs=0.005)
        widths = [cast(Any, level).block.conv_in.in_channels for level in net.down]
        hidden, map_channels = 128, 3
        unused = sum(2 * (9 * hidden + 1) * width + (9 * map_channels + 1) * hidden for width in widths)
        assert (used + unused) / 1e6 == pytest.approx(published_m, abs=0.005)
