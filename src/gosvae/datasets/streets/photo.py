"""Photographic look of a scene: light, sky, surface texture, and the effects of lens and sensor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from gosvae.datasets.streets.stage import BUILDING, ROAD, SKY, SUPERSAMPLING, TREE, Camera, Dice, Light, Rgb, mix, unit

FloatArray = npt.NDArray[np.float32]

# Strength of the fine and the coarse screen-space texture of each class (share of brightness).
_TEXTURE = np.full((256, 2), 0.03, np.float32)
_TEXTURE[[SKY, ROAD, BUILDING, TREE]] = ((0.0, 0.0), (0.03, 0.02), (0.05, 0.07), (0.28, 0.12))


def make_light(dice: Dice) -> tuple[Light, Rgb, Rgb]:
    """Return a random light, with the colours of the sky at the zenith and at the horizon."""
    weather = dice.pick(("sunny", "sunny", "hazy", "overcast", "overcast", "dusk"))
    sun_height = dice.between(0.45, 1.6)
    sun = unit(dice.between(-1, 1), sun_height, dice.between(-1, 1))
    if weather == "sunny":
        zenith, horizon = dice.tint((92, 138, 200), 18), dice.tint((196, 212, 230), 14)
        return Light(sun, dice.between(0.42, 0.6), horizon, dice.between(260, 600), 0.0), zenith, horizon
    if weather == "hazy":
        zenith, horizon = dice.tint((170, 190, 212), 14), dice.tint((226, 226, 222), 10)
        return Light(sun, dice.between(0.15, 0.35), horizon, dice.between(110, 220), 0.0), zenith, horizon
    if weather == "overcast":
        zenith = dice.tint((190, 196, 204), 26)
        horizon = mix(zenith, (236, 236, 236), 0.5)
        light = Light(sun, dice.between(0.0, 0.09), horizon, dice.between(160, 400), dice.between(0, 0.45))
        return light, zenith, horizon
    zenith, horizon = dice.tint((96, 104, 146), 16), dice.tint((232, 186, 150), 18)
    low_sun = unit(sun[0], 0.3, sun[2])
    light = Light(low_sun, dice.between(0.1, 0.3), horizon, dice.between(160, 400), dice.between(0.5, 1.0))
    return light, zenith, horizon


def noise(dice: Dice, height: int, width: int, rows: int, columns: int) -> FloatArray:
    """Return smooth value noise in [-1, 1], shape (height, width), from a grid of rows x columns random values."""
    grid = dice.generator.integers(0, 256, (rows, columns), dtype=np.uint8)
    if (rows, columns) != (height, width):
        grid = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return grid.astype(np.float32) * np.float32(2 / 255) - np.float32(1)


def make_background(dice: Dice, camera: Camera, height: int, width: int, zenith: Rgb, horizon: Rgb) -> Image.Image:
    """Return a supersampled RGBA canvas of sky: a gradient with clouds, class 0 in the fourth channel."""
    rows, columns = height // 2, width // 2  # clouds are soft: a coarse sky is enough
    t = np.clip(np.arange(rows, dtype=np.float32)[:, None, None] * np.float32(2 * SUPERSAMPLING / camera.v0), 0, 1)
    sky = np.array(zenith, np.float32) * (1 - t) + np.array(horizon, np.float32) * t
    stretch = dice.pick((1, 2, 3))
    clouds = np.zeros((rows, columns), np.float32)
    for octave, weight in ((3, 0.5), (6, 0.3), (13, 0.15), (29, 0.08)):
        clouds += np.float32(weight) * noise(dice, rows, columns, octave * stretch, octave * 2)
    cover = np.clip((clouds + np.float32(dice.between(-0.3, 0.25))) * np.float32(2.5), 0, 1)[..., None]
    cover *= np.float32(dice.between(0.2, 0.9))
    cloud_rgb = np.array(mix(horizon, (250, 248, 246), 0.6), np.float32) * (1 + np.float32(0.1) * clouds[..., None])
    rgb = np.clip(sky + (cloud_rgb - sky) * cover, 0, 255).astype(np.uint8)
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    canvas = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR)
    canvas.putalpha(SKY)
    return canvas


def texture_ground(dice: Dice, camera: Camera, shade: Image.Image) -> None:
    """Fill the ground's shade map with grain, drawn in the perspective of the ground plane."""
    width, height = shade.size
    s = np.float32(SUPERSAMPLING)
    first = min(height - 1, max(0, int(camera.v0 / SUPERSAMPLING) + 2))
    rows = np.arange(first, height, dtype=np.float32)[:, None] * s
    z = np.float32(camera.focal * camera.height_m) / (rows - np.float32(camera.v0))
    x = (np.arange(width, dtype=np.float32)[None] * s - np.float32(camera.u0)) * z / np.float32(camera.focal)
    x += np.float32(1033)  # positive, so that truncation rounds down; the seams of the grain are 9 m beside the camera
    coarse, fine = noise(dice, 256, 256, 40, 40), noise(dice, 256, 256, 256, 256)
    grain = coarse[(z * 6).astype(np.int32) & 255, (x * 14).astype(np.int32) & 255] * np.float32(0.06)
    near = np.float32(8) / (np.float32(8) + z)
    grain += fine[(z * 24).astype(np.int32) & 255, (x * 24).astype(np.int32) & 255] * near * np.float32(0.12)
    level = np.clip(np.float32(222) * (1 + grain), 0, 255).astype(np.uint8)
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[first:, :, :3] = level[..., None]
    shade.paste(Image.fromarray(rgba))


def expose(dice: Dice, rgb_HW3: FloatArray, labels_HW: npt.NDArray[np.uint8], light: Light) -> npt.NDArray[np.uint8]:
    """Add texture, glare, white balance, exposure, contrast, vignetting, blur and noise; return uint8 (H, W, 3)."""
    height, width = labels_HW.shape
    strength = _TEXTURE[labels_HW]
    fine = noise(dice, height, width, height, width)  # one value a pixel
    coarse = noise(dice, height, width, max(2, height // 6), max(2, width // 6))
    fine *= strength[..., 0]
    coarse *= strength[..., 1]
    fine += coarse
    fine += np.float32(1)
    image = rgb_HW3 * fine[..., None]
    v = (np.arange(height, dtype=np.float32)[:, None] / height - np.float32(0.5)) * 2
    u = (np.arange(width, dtype=np.float32)[None] / width - np.float32(0.5)) * 2
    if light.sun[2] > 0.4 and light.direct > 0.3:
        distance = (u - np.float32(light.sun[0])) ** 2 + (v + np.float32(1.1)) ** 2
        image += (np.float32(60 * light.sun[2]) / (1 + 3 * distance))[..., None]
    gains = np.array([dice.between(0.92, 1.08), 1.0, dice.between(0.92, 1.08)], np.float32)
    exposure = dice.between(0.82, 1.12) * (1 - 0.42 * light.dusk)
    gains *= np.float32(exposure) * np.array([1 + 0.05 * light.dusk, 1, 1 + 0.08 * light.dusk], np.float32)
    image *= gains * (1 - np.float32(dice.between(0.02, 0.16)) * (u * u + v * v))[..., None]
    # Tone curve of +, -, *, / only: it raises the middle tones and compresses the bright ones.
    bend = np.float32(dice.between(0.0, 0.35))
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    levels = levels * (1 + bend) / (1 + bend * levels)
    levels += np.float32(dice.between(-0.1, 0.45)) * levels * (1 - levels) * (2 * levels - 1)
    curve = np.clip(levels * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    picture = curve[np.clip(image, 0, 255, out=image).astype(np.uint8)]
    return _sensor(dice, _blur(dice, picture), light)


def _blur(dice: Dice, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the picture as it is, slightly out of focus, or blurred by a sideways motion."""
    how, amount = float(dice.random()), dice.between(0.3, 0.8)
    if how < 0.45:
        return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(amount)))
    if how < 0.6:
        wide = picture.astype(np.uint16)
        moved = wide.copy()
        moved[:, 1:] += wide[:, :-1]
        moved[:, :1] += wide[:, :1]
        moved >>= 1
        return moved.astype(np.uint8)
    return picture


def _sensor(dice: Dice, picture: npt.NDArray[np.uint8], light: Light) -> npt.NDArray[np.uint8]:
    """Add noise: the sum of two uniform variables, nearly Gaussian and exact on every machine."""
    height, width, _ = picture.shape
    amount = np.float32(dice.between(0.5, 3.0) * (1 + 1.2 * light.dusk) / 104.0)
    grains = dice.generator.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    noisy: FloatArray = np.subtract(grains[0], grains[1], dtype=np.float32)
    noisy *= amount
    noisy += picture
    noisy += np.float32(0.5)
    np.clip(noisy, 0, 255, out=noisy)
    return noisy.astype(np.uint8)
