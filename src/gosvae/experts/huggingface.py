"""Models of Hugging Face `transformers` as experts, by hub id or local folder.

There are two families of segmentation models with one contract:

- networks that predict class logits on a grid (SegFormer, UPerNet, BEiT, DPT and all others of
  `AutoModelForSemanticSegmentation`);
- networks that predict Q masks with a class each (OneFormer, the expert of the paper; Mask2Former; MaskFormer).

Detectors (`AutoModelForObjectDetection`) and depth networks (`AutoModelForDepthEstimation`) are experts of those tasks.

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

from gosvae import walk
from gosvae.errors import ExpertError, GosvaeError, MissingDependencyError
from gosvae.experts.base import Expert, ExpertInfo, TaskExpert
from gosvae.experts.huggingface_network import RESAMPLING, HuggingFaceNetwork, first_line, processed_size
from gosvae.experts.huggingface_tasks import HuggingFaceDepth, HuggingFaceDetector
from gosvae.files import is_lfs_pointer

_QUERY_MODELS = ("mask2former", "maskformer", "oneformer")
_MASK2FORMER_GRID = (384, 384)
"""Size that mask logits of Mask2Former are resized to before the sigmoid, as in the library's post-processing."""
_SMALLEST_SCORE = 1e-20
"""Lower bound of scores, which keeps the logarithm and its gradient finite in float32."""
_TYPICAL_IMAGE = (512, 512)


class HuggingFaceExpert(HuggingFaceNetwork, Expert):
    """Expert of a segmentation model of `transformers`."""

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W); for query models, their softmax is S of Eq. 3, the share of each class.

        Raises:
            ExpertError: the model or its image processor cannot take the image size.
        """
        image_size = (x_B3HW.shape[-2], x_B3HW.shape[-1])
        outputs = self.run(x_B3HW)
        if self.model_type in _QUERY_MODELS:
            mask_grid = _MASK2FORMER_GRID if self.model_type == "mask2former" else None
            return query_logits(
                outputs.class_queries_logits, outputs.masks_queries_logits, image_size, mask_grid=mask_grid
            )
        return F.interpolate(outputs.logits.float(), image_size, mode="bilinear", align_corners=False)


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


def load_huggingface_expert(source: str | Path, *, short: int | None = None) -> TaskExpert:
    """Load a model from a folder (never asks the hub) or by hub id. No remote code is run.

    Its class decides the task: segmentation, detection or depth.

    Args:
        source: folder or hub id.
        short: short side in pixels that images are resized to, with their aspect ratio; None takes the size of the
            model's image processor.

    Raises:
        MissingDependencyError: `transformers` or a package that the model needs is missing or broken.
        ExpertError: no such folder, the hub cannot be reached, or it is not a complete model of
            one of these tasks.
    """
    _require_transformers()
    folder = walk.expanded(source)
    local = folder.is_dir()
    if local and not (folder / "config.json").is_file():
        raise ExpertError(f"{folder} is not a transformers model: no config.json in it")
    for path in sorted(folder.iterdir()) if local else ():
        if path.is_file() and is_lfs_pointer(path):
            raise ExpertError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in {folder}")
    if not local and (isinstance(source, Path) or folder.is_absolute() or str(source).startswith((".", "~"))):
        raise ExpertError(f"no folder {folder}; give an existing folder or a hub id such as ORGANISATION/MODEL")
    place = str(folder.resolve()) if local else str(source)
    name = folder.resolve().name if local else folder.name
    with _quiet(), _explained(place, local=local):
        expert = _load(place, name, {"local_files_only": local, "trust_remote_code": False})
    if short is not None:
        assert isinstance(expert, HuggingFaceNetwork)
        expert.resize_to(short)
    return expert


def huggingface_class_names(source: str | Path) -> tuple[str, ...]:
    """Return the class names in the configuration of a model, without its weights; errors as those of the load."""
    _require_transformers()
    from transformers import AutoConfig

    local = walk.expanded(source).is_dir()
    place = str(walk.expanded(source).resolve()) if local else str(source)
    with _quiet(), _explained(place, local=local):
        return _class_names(AutoConfig.from_pretrained(place, local_files_only=local, trust_remote_code=False))


def _load(place: str, name: str, options: dict[str, Any]) -> TaskExpert:
    from transformers import (
        AutoConfig,
        AutoModelForDepthEstimation,
        AutoModelForObjectDetection,
        AutoModelForSemanticSegmentation,
        AutoModelForUniversalSegmentation,
    )

    config = AutoConfig.from_pretrained(place, **options)
    made = [str(name) for name in config.architectures or ()]
    others = (("ObjectDetection", AutoModelForObjectDetection), ("DepthEstimation", AutoModelForDepthEstimation))
    for ending, auto_model in others:
        if any(each.endswith(ending) for each in made):
            network, processor = _network(auto_model, place, config, options)
            size = processed_size(processor, *_TYPICAL_IMAGE)
            if ending == "DepthEstimation":
                return HuggingFaceDepth(ExpertInfo(name, (), *size), network, processor)
            return HuggingFaceDetector(ExpertInfo(name, _class_names(config), *size), network, processor)
    if made and not any("Segmentation" in name for name in made):
        raise ExpertError(
            f"{place} holds a {made[0]}, which gives no class to each pixel: take a model whose class in transformers "
            "ends in ForSemanticSegmentation, ForUniversalSegmentation, ForObjectDetection or ForDepthEstimation"
        )
    if config.model_type in _QUERY_MODELS:
        auto_model = AutoModelForUniversalSegmentation
    elif type(config) in AutoModelForSemanticSegmentation._model_mapping:
        auto_model = AutoModelForSemanticSegmentation
    elif type(config) in AutoModelForUniversalSegmentation._model_mapping:
        raise ExpertError(
            f"{place} is a {config.model_type!r} model: transformers segments with it, gosvae does not yet; of the "
            "models that predict masks, gosvae takes OneFormer, Mask2Former and MaskFormer; export this one with "
            "torch.export, in a module that returns class logits"
        )
    else:
        raise ExpertError(
            f"{place} is a {config.model_type!r} model, which has no semantic segmentation in transformers"
        )
    network, processor = _network(auto_model, place, config, options)
    tokens = _task_tokens(place, config.task_seq_len, options) if config.model_type == "oneformer" else None
    height, width = processed_size(processor, *_TYPICAL_IMAGE)
    return HuggingFaceExpert(ExpertInfo(name, _class_names(config), height, width), network, processor, tokens)


def _class_names(config: Any) -> tuple[str, ...]:
    return tuple(str(label) for _, label in sorted(config.id2label.items()))


def _network(auto_model: Any, place: str, config: Any, options: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Return the model with all its weights, and its image processor."""
    processor = _load_processor(place, config.model_type, options)
    network, loading = auto_model.from_pretrained(
        place, config=config, dtype=torch.float32, output_loading_info=True, **options
    )
    _check_complete(place, network, loading["missing_keys"])
    return network, processor


def _load_processor(place: str, model_type: str, options: dict[str, Any]) -> Any:
    from transformers import AutoImageProcessor

    # OneFormer's class file is for training only, and its stored `repo_path` is a path of the machine that saved it.
    extra = {"class_info_file": None} if model_type == "oneformer" else {}
    # Pillow's processors need no torchvision; only the settings and the size computation are used here.
    try:
        processor = AutoImageProcessor.from_pretrained(place, backend="pil", **options, **extra)
    except OSError:
        if not (Path(place).is_dir() and not (Path(place) / "preprocessor_config.json").is_file()):
            raise
        raise ExpertError(
            f"{place} has no image processor (preprocessor_config.json), which says how images are resized and "
            f"normalised: save it there, too, with AutoImageProcessor.from_pretrained(ID).save_pretrained({place!r})"
        ) from None
    if processor.do_resize and int(processor.resample) not in RESAMPLING:
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
            f"it is not a trained model"
        )


def _task_tokens(place: str, length: int, options: dict[str, Any]) -> Tensor:
    """Return the token ids (1, T) of OneFormer's task, 0 where padded, as `OneFormerProcessor` makes them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    tokens = tokenizer("the task is semantic", padding="max_length", max_length=length, truncation=True)
    return torch.tensor(tokens["input_ids"])[None] * torch.tensor(tokens["attention_mask"])[None]


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
            f"the installed torchvision is broken and takes transformers down with it ({first_line(error)}): "
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
        raise MissingDependencyError(f"{place} needs a package that is missing: {first_line(error)}") from error
    except Exception as error:
        if local or isinstance(error, (ValueError, KeyError)):
            raise ExpertError(f"{place} cannot be loaded as a transformers model: {first_line(error)}") from error
        raise ExpertError(
            f"cannot get {place!r} from the Hugging Face hub ({first_line(error)}); check the id and the connection, "
            f"or run `hf download {place} --local-dir FOLDER` where there is one and give that folder"
        ) from error
