"""Conditional diffusion on semantic maps: noising, loss terms, guided sampling. The schedulers are those of diffusers.

Sources: DDPM (Ho et al. 2020), DDIM (Song et al. 2021), learned variance (Nichol and Dhariwal 2021), classifier-free
guidance (Ho and Salimans 2021), weights limited in signal-to-noise ratio (Hang et al. 2023, "Min-SNR"). Wang et al.
(2022) combine them for semantic maps, and GESCO (Grassucci et al. 2023) uses them over a channel.

Axis legend: B images, 3 RGB channels, L label channels (classes, then edges), H and W pixels, T steps of the schedule.
Pictures inside a diffusion lie in [-1, 1], outside in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from gosvae.errors import ShapeError
from gosvae.extras import needs
from gosvae.nn.semantic_unet import IMAGE_CHANNELS, SemanticUNet, UNetConfig

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

KEPT_BYTES = 2**30
"""Largest memory, in bytes, in which a sampler keeps the scales and shifts of a map, to compute them only once."""
_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
_PREDICTIONS = {"noise": "epsilon", "image": "sample", "velocity": "v_prediction"}


class DiffusionConfig(UNetConfig):
    """Configuration of a semantic U-Net and of the diffusion that it is trained for; the defaults are GESCO's.

    Attributes:
        class_count: number of classes of the map; training sets it to the expert's. The paper's Table I has 35.
        timesteps: number of steps of noising in training, T.
        schedule: growth of the noise: `linear` (DDPM) or `cosine` (Nichol and Dhariwal 2021).
        prediction: target of the network: the `noise`, the clean `image`, or the `velocity` (Salimans and Ho 2022).
            Large patches hold more noise than a narrow network can carry: they need `image`.
        sampler: `ddpm` (random steps) or `ddim` (deterministic steps after the first draw).
        sampling_steps: number of steps of the sampler, spread over the T; the paper samples with 100.
        guidance: scale of classifier-free guidance; 1 is the conditional prediction alone. GESCO has 2 on Cityscapes
            and 2.5 on ADE20K.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        **UNetConfig.neutral,
        "class_count": 35,
        "timesteps": 1000,
        "schedule": "linear",
        "prediction": "noise",
        "sampler": "ddpm",
        "sampling_steps": 100,
        "guidance": 2.0,
    }

    class_count: int = Field(default=35, ge=2, le=255)
    timesteps: int = Field(default=1000, ge=2, le=100_000)
    schedule: Literal["linear", "cosine"] = "linear"
    prediction: Literal["noise", "image", "velocity"] = "noise"
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    sampling_steps: int = Field(default=100, ge=2)
    guidance: float = Field(default=2.0, ge=1)

    @model_validator(mode="after")
    def _fewer_sampling_steps(self) -> DiffusionConfig:
        if self.sampling_steps > self.timesteps:
            raise ValueError(f"sampling_steps {self.sampling_steps} are more than timesteps {self.timesteps}")
        return self


def semantic_map(classes_BHW: Tensor, class_count: int, *, edges: bool) -> Tensor:
    """Return a one-hot map (B, L, H, W), float32, of class numbers in [0, class_count), with edges in the last channel.

    GESCO draws the edges of Cityscapes between instances. An expert for semantic segmentation knows no instances, so
    these are the edges between classes: they follow from the map and cost no bytes, but two cars that touch are one.
    """
    one_hot_BmHW = F.one_hot(classes_BHW.long(), class_count).movedim(-1, 1).float()
    return torch.cat([one_hot_BmHW, class_edges(classes_BHW)], dim=1) if edges else one_hot_BmHW


def class_edges(classes_BHW: Tensor) -> Tensor:
    """Return float32 (B, 1, H, W): 1.0 where one of the four neighbours has another class, else 0.0."""
    edges_BHW = torch.zeros_like(classes_BHW, dtype=torch.bool)
    across = classes_BHW[:, :, 1:] != classes_BHW[:, :, :-1]
    down = classes_BHW[:, 1:, :] != classes_BHW[:, :-1, :]
    edges_BHW[:, :, 1:] |= across
    edges_BHW[:, :, :-1] |= across
    edges_BHW[:, 1:, :] |= down
    edges_BHW[:, :-1, :] |= down
    return edges_BHW.float().unsqueeze(1)


def degraded_map(
    map_BLHW: Tensor, deviations: Sequence[float], drop: float, generator: torch.Generator | None = None
) -> Tensor:
    """Return maps for training: with Gaussian noise, as a noisy channel would leave them, or all zeros.

    Every picture draws one of the standard deviations (GESCO's training against a noisy map). With probability `drop`
    its map is all zeros, which stands for the unconditional prediction of classifier-free guidance.
    """
    batch = len(map_BLHW)
    chosen_B = torch.tensor(list(deviations), dtype=torch.float32)[
        torch.randint(len(deviations), (batch,), generator=generator)
    ]
    kept_B = torch.rand(batch, generator=generator) >= drop
    noise_BLHW = torch.randn(map_BLHW.shape, generator=generator, dtype=torch.float32).to(map_BLHW.device)
    noisy_BLHW = map_BLHW + noise_BLHW * chosen_B.to(map_BLHW.device).view(-1, 1, 1, 1)
    return noisy_BLHW * kept_B.to(map_BLHW.device).view(-1, 1, 1, 1)


def make_scheduler(config: DiffusionConfig) -> DDPMScheduler | DDIMScheduler:
    """Return the scheduler of diffusers for a configuration.

    `add_noise` and `alphas_cumprod` are the same for both samplers.
    """
    with needs("train", "GESCO's diffusion"):  # imported here: slow to load
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    common = {
        "num_train_timesteps": config.timesteps,
        "beta_schedule": _SCHEDULES[config.schedule],
        "prediction_type": _PREDICTIONS[config.prediction],
    }
    # Both begin at the last step of the noising, with noise alone. DDPM ends at step 0, where no more noise is added;
    # DDIM, which needs equal distances, steps from its last one to the picture.
    if config.sampler == "ddim":
        return DDIMScheduler(**common, timestep_spacing="trailing")
    # Ho et al. and Wang et al. use a fixed large variance where it is not learned.
    variance = "learned_range" if config.learned_variance else "fixed_large"
    return DDPMScheduler(**common, timestep_spacing="linspace", variance_type=variance)


class Diffusion:
    """Closed forms of a noise schedule, for training.

    Args:
        config: configuration of the diffusion.
        snr_limit: largest signal-to-noise ratio up to which loss weights grow with it (Min-SNR); None for the plain
            mean square of the prediction (DDPM's simple loss).
    """

    def __init__(self, config: DiffusionConfig, *, snr_limit: float | None = None) -> None:
        self.config = config
        self.snr_limit = snr_limit
        self._scheduler = make_scheduler(config)
        alphas_T = self._scheduler.alphas_cumprod.double()
        before_T = torch.cat([torch.ones(1, dtype=torch.float64), alphas_T[:-1]])
        self._alphas_T, self._before_T = alphas_T, before_T

    def noised(self, x_B3HW: Tensor, noise_B3HW: Tensor, timesteps_B: Tensor) -> Tensor:
        """Return a draw of q(x_t | x_0): sqrt(a_t) x_0 + sqrt(1 - a_t) noise, with a_t the product of the alphas."""
        noisy: Tensor = self._scheduler.add_noise(x_B3HW, noise_B3HW, timesteps_B)
        return noisy

    def _of(self, values_T: Tensor, timesteps_B: Tensor) -> Tensor:
        """Return the schedule's values at the steps, float32 (B, 1, 1, 1)."""
        return values_T[timesteps_B.cpu()].float().view(-1, 1, 1, 1).to(timesteps_B.device)

    def target(self, x_B3HW: Tensor, noise_B3HW: Tensor, timesteps_B: Tensor) -> Tensor:
        """Return the target of the network's prediction."""
        if self.config.prediction == "noise":
            return noise_B3HW
        if self.config.prediction == "image":
            return x_B3HW
        velocity: Tensor = self._scheduler.get_velocity(x_B3HW, noise_B3HW, timesteps_B)
        return velocity

    def image(self, prediction_B3HW: Tensor, noisy_B3HW: Tensor, timesteps_B: Tensor) -> Tensor:
        """Return the clean picture in [-1, 1] that a prediction stands for."""
        if self.config.prediction == "image":
            return prediction_B3HW
        alpha = self._of(self._alphas_T, timesteps_B)
        if self.config.prediction == "velocity":
            return alpha.sqrt() * noisy_B3HW - (1 - alpha).sqrt() * prediction_B3HW
        return (noisy_B3HW - (1 - alpha).sqrt() * prediction_B3HW) / alpha.sqrt()

    def loss_weights(self, timesteps_B: Tensor) -> Tensor:
        """Return the weight of each picture's squared error, (B,)."""
        if self.snr_limit is None:
            return torch.ones(len(timesteps_B), dtype=torch.float32, device=timesteps_B.device)
        alpha_B = self._alphas_T[timesteps_B.cpu()]
        snr_B = alpha_B / (1 - alpha_B)
        limited_B = snr_B.clamp_max(self.snr_limit)
        divisor_B = {"noise": snr_B, "image": torch.ones_like(snr_B), "velocity": snr_B + 1}[self.config.prediction]
        weights_B: Tensor = (limited_B / divisor_B).float()
        return weights_B.to(timesteps_B.device)

    def terms(self, output_BCHW: Tensor, x_B3HW: Tensor, noise_B3HW: Tensor, timesteps_B: Tensor) -> dict[str, Tensor]:
        """Return the unweighted loss terms of a network's output: `denoising`, and `variance` where it is learned.

        Args:
            output_BCHW: output (B, 3 or 6, H, W) for the pictures after the noise at the steps was added.
            x_B3HW: clean pictures in [-1, 1].
            noise_B3HW: noise that was added.
            timesteps_B: steps of the noising.
        """
        prediction = output_BCHW[:, :IMAGE_CHANNELS].float()
        square_B = (prediction - self.target(x_B3HW, noise_B3HW, timesteps_B)).square().mean(dim=(1, 2, 3))
        terms = {"denoising": (self.loss_weights(timesteps_B) * square_B).mean()}
        if self.config.learned_variance:
            terms["variance"] = self._variance_bits(
                prediction.detach(), output_BCHW[:, IMAGE_CHANNELS:].float(), x_B3HW, noise_B3HW, timesteps_B
            )
        return terms

    def _variance_bits(
        self, prediction: Tensor, fraction: Tensor, x_B3HW: Tensor, noise_B3HW: Tensor, timesteps_B: Tensor
    ) -> Tensor:
        """Return one term of the variational bound, in bits for each value (Nichol and Dhariwal 2021, Eqs. 14 to 16).

        The term is KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0, and the discretised likelihood of x_0 for
        t = 0. Only the variance learns from it: the mean is taken as given.
        """
        alpha, before = self._of(self._alphas_T, timesteps_B), self._of(self._before_T, timesteps_B)
        beta = 1 - alpha / before
        noisy = self.noised(x_B3HW, noise_B3HW, timesteps_B)
        x_hat = self.image(prediction, noisy, timesteps_B)
        # DDPM, Eqs. 6 and 7: the posterior's mean from x_0 and x_t, and its variance.
        from_clean = before.sqrt() * beta / (1 - alpha)
        from_noisy = (1 - beta).sqrt() * (1 - before) / (1 - alpha)
        difference = from_clean * (x_B3HW - x_hat)
        # The first step's posterior has no variance: that of the second step replaces it, as in the source.
        log_low_T = (1 - self._before_T).div(1 - self._alphas_T).mul(1 - self._alphas_T / self._before_T).log()
        log_low_T[0] = log_low_T[1]
        log_low = self._of(log_low_T, timesteps_B)
        share = (fraction + 1) / 2
        log_variance = share * beta.log() + (1 - share) * log_low
        kl = 0.5 * (log_variance - log_low + (log_low - log_variance).exp() - 1)
        kl = kl + 0.5 * difference.square() * (-log_variance).exp()
        mean = from_clean * x_hat + from_noisy * noisy
        first = (timesteps_B == 0).view(-1, 1, 1, 1)
        nats = torch.where(first, -_log_likelihood(x_B3HW, mean, log_variance), kl)
        return nats.mean() / math.log(2.0)


def _log_likelihood(x_B3HW: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return log-probabilities, in nats, of 8-bit values under Gaussians: the mass within half a level.

    This is Eq. 13 of DDPM.
    """
    rate, half = (-0.5 * log_variance).exp(), 1.0 / 255.0
    above = torch.special.ndtr((x_B3HW + half - mean) * rate)
    below = torch.special.ndtr((x_B3HW - half - mean) * rate)
    mass = torch.where(x_B3HW < -0.999, above, torch.where(x_B3HW > 0.999, 1 - below, above - below))
    return mass.clamp_min(1e-12).log()


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Return the prediction with classifier-free guidance; the channels of the variance are the conditional ones."""
    mean_c, mean_u = conditional[:, :IMAGE_CHANNELS], unconditional[:, :IMAGE_CHANNELS]
    return torch.cat([mean_u + guidance * (mean_c - mean_u), conditional[:, IMAGE_CHANNELS:]], dim=1)


@torch.inference_mode()
def sample(
    network: SemanticUNet, config: DiffusionConfig, map_BLHW: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    """Return pictures (B, 3, H, W) in [0, 1] for semantic maps whose sides are multiples of `config.stride`.

    Each picture has a generator (on the CPU) that alone decides its noise: the same map, network and seed give the same
    picture, whatever else is in the batch, up to the rounding of floats.

    Raises:
        ShapeError: the sides are not multiples of the stride, the map has another number of label channels, or there
            is not one generator for each picture.
    """
    batch, labels, height, width = map_BLHW.shape
    if len(generators) != batch:
        raise ShapeError(f"expected {len(generators)} semantic maps, one for each generator", map_BLHW.shape)
    if labels != network.label_channels or height % config.stride or width % config.stride:
        wanted = f"(B, {network.label_channels}, H, W) with sides that are multiples of {config.stride}"
        raise ShapeError(f"expected a semantic map {wanted}", map_BLHW.shape)
    scheduler = make_scheduler(config)
    scheduler.set_timesteps(config.sampling_steps)
    guides = config.guidance > 1
    maps = torch.cat([map_BLHW, torch.zeros_like(map_BLHW)]) if guides else map_BLHW
    condition = network.condition(maps, keep_bytes=KEPT_BYTES)
    noise = [
        torch.randn((1, IMAGE_CHANNELS, height, width), generator=generator, dtype=torch.float32)
        for generator in generators
    ]
    x = torch.cat(noise).to(map_BLHW.device)
    for timestep in scheduler.timesteps:
        repeated = torch.cat([x, x]) if guides else x
        output = network(repeated, timestep.to(x.device).expand(len(repeated)), condition).float()
        if guides:
            output = guided(output[:batch], output[batch:], config.guidance)
        if config.sampler == "ddim":
            output = output[:, :IMAGE_CHANNELS]
        # A list of generators is not in the annotations of diffusers, but in its code.
        each: Any = list(generators)
        x = scheduler.step(output, timestep, x, generator=each).prev_sample
    return (x / 2 + 0.5).clamp(0, 1)
