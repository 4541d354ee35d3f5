"""Segmentation models of Hugging Face `transformers` as experts, by hub id or local folder.

There are two families with one contract:

- networks that predict class logits on a grid (SegFormer, UPerNet, BEiT, DPT and all others of
  `AutoModelForSemanticSegmentation`);
- networks that predict Q masks with a class each (OneFormer, the expert of the paper; Mask2Former; MaskFormer).

Axis legend: B images, m classes, Q queries, H and W pixels, h and w grid positions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ExpertError, GosvaeError, MissingDependencyError
from gosvae.experts.base import Expert, ExpertInfo

_QUERY_MODELS = ("mask2former", "maskformer", "oneformer")
_MASK2FORMER_GRID = (384, 384)
"""Size that mask logits of Mask2Former are resized to before the sigmoid, as in the library's post-processing."""
_SMALLEST_SCORE = 1e-20
"""Lower bound of scores, which keeps the logarithm and its gradient finite in float32."""
_RESAMPLING = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""Filters of `interpolate` by Pillow's filter numbers, which image processors store."""
_TYPICAL_IMAGE = (512, 512)
_HALF_LEVEL = 0.5 / 255


class HuggingFaceExpert(Expert):
    """Expert of a segmentation model of `transformers`, with a differentiable version of its image processor inside."""

    gain_3: Tensor
    mean_3: Tensor
    std_3: Tensor
    task_tokens: Tensor | None

    def __init__(self, info: ExpertInfo, network: nn.Module, processor: Any, task_tokens_1T: Tensor | None) -> None:
        super().__init__(info)
        self.network = network
        self._processor = processor
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._model_type: str = network.config.model_type  # type: ignore[assignment, union-attr]
        gain = 255.0 * processor.rescale_factor if processor.do_rescale else 255.0
        normalise = getattr(processor, "do_normalize", False)
        for name, value in (
            ("gain_3", gain),
            ("mean_3", processor.image_mean if normalise else 0.0),
            ("std_3", processor.image_std if normalise else 1.0),
        ):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32).expand(3).clone())
        self.register_buffer("task_tokens", task_tokens_1T)
        self.freeze()

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W); for query models, their softmax is S of Eq. 3, the share of each class.

        Raises:
            ExpertError: the model or its image processor cannot take the image size.
        """
        image_size = (x_B3HW.shape[-2], x_B3HW.shape[-1])
        inputs: dict[str, Tensor] = {"pixel_values": self.preprocess(x_B3HW)}
        if self.task_tokens is not None:
            inputs["task_inputs"] = self.task_tokens.expand(x_B3HW.shape[0], -1)
        try:
            outputs = self.network(**inputs)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            shape = tuple(inputs["pixel_values"].shape)
            raise ExpertError(f"{self.info.name!r} cannot take an input of {shape}: {_first_line(error)}") from error
        if self._model_type in _QUERY_MODELS:
            mask_grid = _MASK2FORMER_GRID if self._model_type == "mask2former" else None
            return query_logits(
                outputs.class_queries_logits, outputs.masks_queries_logits, image_size, mask_grid=mask_grid
            )
        return F.interpolate(outputs.logits.float(), image_size, mode="bilinear", align_corners=False)

    def preprocess(self, x_B3HW: Tensor) -> Tensor:
        """Return RGB in [0, 1] resized, rescaled and normalised as by the model's image processor; differentiable.

        There is no centre crop, because every pixel needs a class, and no padding.
        """
        size = self._network_size(x_B3HW.shape[-2], x_B3HW.shape[-1])
        x = x_B3HW
        if size != tuple(x.shape[-2:]):
            mode = _RESAMPLING[int(self._processor.resample)]
            smooth = mode != "nearest-exact"
            # First along the width, then along the height, as Pillow does; it clips overshoots of bicubic after each.
            for part in ((x.shape[-2], size[1]), size):
                x = F.interpolate(x, part, mode=mode, align_corners=False if smooth else None, antialias=smooth)
                if mode == "bicubic":
                    # Half a level of room keeps the gradient of plain black and white from being 0.
                    x = x.clamp(-_HALF_LEVEL, 1.0 + _HALF_LEVEL)
        if getattr(self._processor, "do_flip_channel_order", False):
            x = x.flip(1)
        return (x * self.gain_3[:, None, None] - self.mean_3[:, None, None]) / self.std_3[:, None, None]

    def _network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width that the image processor resizes to."""
        if (height, width) not in self._sizes:
            self._sizes[height, width] = _processed_size(self._processor, height, width)
        return self._sizes[height, width]


def query_logits(
    classes_BQn: Tensor, masks_BQhw: Tensor, image_size: tuple[int, int], *, mask_grid: tuple[int, int] | None = None
) -> Tensor:
    """Return class logits (B, m, H, W) from Q masks with a class each, differentiable and finite.

    A class's score at a pixel is the sum over queries of its probability (softmax without the null class, the last
    of n = m + 1) times the mask's (sigmoid), as in Cheng et al. 2021, "Per-Pixel Classification is Not All You Need".
    The logits are the logarithm of the normalised scores: softmax gives the scores' shares, the argmax is the map of
    the library's `post_process_semantic_segmentation`.

    Args:
        classes_BQn: logits of the classes, the null class last.
        masks_BQhw: logits of the masks.
        image_size: H and W of the result; scores are resized to it bilinearly.
        mask_grid: size that mask logits are resized to before the sigmoid.
    """
    with torch.autocast(masks_BQhw.device.type, enabled=False):
        masks = masks_BQhw.float()
        if mask_grid is not None:
            masks = F.interpolate(masks, mask_grid, mode="bilinear", align_corners=False)
        classes_BQm = classes_BQn.float().softmax(dim=-1)[..., :-1]
        scores = torch.einsum("bqm,bqhw->bmhw", classes_BQm, masks.sigmoid())
        scores = F.interpolate(scores, image_size, mode="bilinear", align_corners=False) + _SMALLEST_SCORE
        return scores.log() - scores.sum(dim=1, keepdim=True).log()


def load_huggingface_expert(source: str | Path) -> HuggingFaceExpert:
    """Load a semantic segmentation model from a folder (never asks the hub) or by hub id. No remote code is run.

    Raises:
        MissingDependencyError: `transformers` or a package that the model needs is missing or broken.
        ExpertError: no such folder, the hub cannot be reached, or it is not a complete segmentation model.
    """
    _require_transformers()
    folder = Path(source).expanduser()
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        raise ExpertError(f"{folder} is not a transformers model: no config.json in it")
    if not local and (isinstance(source, Path) or folder.is_absolute() or str(source).startswith((".", "~"))):
        raise ExpertError(f"no folder {folder}; give an existing folder or a hub id such as ORGANISATION/MODEL")
    place = str(folder.resolve()) if local else str(source)
    name = folder.resolve().name if local else folder.name
    with _quiet(), _explained(place, local=local):
        return _load(place, name, {"local_files_only": local, "trust_remote_code": False})


def _load(place: str, name: str, options: dict[str, Any]) -> HuggingFaceExpert:
    from transformers import AutoConfig, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

    config = AutoConfig.from_pretrained(place, **options)
    if config.model_type in _QUERY_MODELS:
        auto_model = AutoModelForUniversalSegmentation
    elif type(config) in AutoModelForSemanticSegmentation._model_mapping:
        auto_model = AutoModelForSemanticSegmentation
    else:
        raise ExpertError(
            f"{place} is a {config.model_type!r} model, which has no semantic segmentation in transformers"
        )
    class_names = tuple(str(label) for _, label in sorted(config.id2label.items()))
    processor = _load_processor(place, config.model_type, options)
    network, loading = auto_model.from_pretrained(
        place, config=config, dtype=torch.float32, output_loading_info=True, **options
    )
    _check_complete(place, network, loading["missing_keys"])
    tokens = _task_tokens(place, config.task_seq_len, options) if config.model_type == "oneformer" else None
    height, width = _processed_size(processor, *_TYPICAL_IMAGE)
    return HuggingFaceExpert(ExpertInfo(name, class_names, height, width), network, processor, tokens)


def _load_processor(place: str, model_type: str, options: dict[str, Any]) -> Any:
    from transformers import AutoImageProcessor

    # OneFormer's class file is for training only, and its stored `repo_path` is a path of the machine that saved it.
    extra = {"class_info_file": None} if model_type == "oneformer" else {}
    # Pillow's processors need no torchvision; only the settings and the size computation are used here.
    processor = AutoImageProcessor.from_pretrained(place, backend="pil", **options, **extra)
    if processor.do_resize and int(processor.resample) not in _RESAMPLING:
        raise ExpertError(f"{place}: resampling filter {processor.resample} has no differentiable counterpart")
    return processor


def _check_complete(place: str, network: nn.Module, missing_keys: set[str]) -> None:
    """Raise an error if the files lack weights that the network uses: `transformers` fills them with random values."""
    # The first fusion layer of DPT has a branch that is never used and that published checkpoints do not hold.
    unused = "neck.fusion_stage.layers.0.residual_layer1."
    parameters = {key for key, _ in network.named_parameters() if not key.startswith(unused)}
    missing = sorted(parameters & set(missing_keys))
    if missing:
        raise ExpertError(
            f"{place} has no weights for {len(missing)} tensors of {type(network).__name__} (first: {missing[0]}); "
            f"it is not a trained segmentation model"
        )


def _task_tokens(place: str, length: int, options: dict[str, Any]) -> Tensor:
    """Return the token ids (1, T) of OneFormer's task, 0 where padded, as `OneFormerProcessor` makes them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    tokens = tokenizer("the task is semantic", padding="max_length", max_length=length, truncation=True)
    return torch.tensor(tokens["input_ids"])[None] * torch.tensor(tokens["attention_mask"])[None]


def _processed_size(processor: Any, height: int, width: int) -> tuple[int, int]:
    """Return the size that the library's own processor resizes height x width to, found with an empty picture."""
    import numpy as np

    picture = np.zeros((height, width, 3), np.uint8)
    off = dict.fromkeys(("do_pad", "do_center_crop", "do_rescale", "do_normalize"), False)
    try:
        pixels = processor(picture, input_data_format="channels_last", return_tensors="np", **off)["pixel_values"]
    except Exception as error:
        raise ExpertError(
            f"the model's image processor cannot resize {height}x{width} pixels: {_first_line(error)}"
        ) from error
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def _require_transformers() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise MissingDependencyError(
            "Hugging Face experts need transformers, which is not installed: pip install 'gosvae[huggingface]'"
        )
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        raise MissingDependencyError(
            f"the installed torchvision is broken and takes transformers down with it ({_first_line(error)}): "
            f"pip uninstall torchvision (gosvae does not need it), or install the build for torch {torch.__version__}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's progress bars and load reports; the important part of them is raised as an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _explained(place: str, *, local: bool) -> Iterator[None]:
    """Turn errors that `transformers` raises while loading into one line that says what to do."""
    try:
        yield
    except GosvaeError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"{place} needs a package that is missing: {_first_line(error)}") from error
    except Exception as error:
        if local or isinstance(error, (ValueError, KeyError)):
            raise ExpertError(f"{place} cannot be loaded as a transformers model: {_first_line(error)}") from error
        raise ExpertError(
            f"cannot get {place!r} from the Hugging Face hub ({_first_line(error)}); check the id and the connection, "
            f"or run `hf download {place} --local-dir FOLDER` where there is one and give that folder"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
