"""Models of timm, torchvision and transformers, and their own configurations.

Each library is imported when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn

from crossfer.errors import CrossferError, one_line
from crossfer.networks.layers import FOUND, NamedLayers
from crossfer.networks.preprocessing import Preprocessing, normalise

TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class Own:
    """A model's own configuration: preprocessing, classes of its outputs, layers.

    An output without a name has no class.
    """

    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    layers: NamedLayers = FOUND


def library(name: str) -> Any:
    """Import a library of models.

    Raises
    ------
    CrossferError
        If it is not installed.
    """
    try:
        with suppress(ModuleNotFoundError) if name == TRANSFORMERS else nullcontext():
            _torchvision()  # transformers uses it where it is there
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise CrossferError(f"{missing} is not installed: pip install 'crossfer[models]'") from None


def _torchvision() -> None:
    """Import torchvision, which timm and onnx2torch need and transformers uses.

    Its usual build contains compiled operations for GPUs.  With a CPU build of PyTorch they cannot be loaded,
    and the import fails although no classifier needs them, unless two of their names are defined.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            _OPERATIONS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


_OPERATIONS = torch.library.Library("torchvision", "FRAGMENT")


@contextmanager
def _offline() -> Iterator[None]:
    """Let no model hub be asked: what is built here gets its weights from a bundle."""
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        yield
        return
    before, hub.constants.HF_HUB_OFFLINE = hub.constants.HF_HUB_OFFLINE, True
    try:
        yield
    except (hub.errors.LocalEntryNotFoundError, hub.errors.OfflineModeIsEnabled):
        raise CrossferError(
            "its configuration is not on this machine, and a bundle asks no server; if you trust the name, "
            "fetch it with `hf download NAME config.json`"
        ) from None
    finally:
        hub.constants.HF_HUB_OFFLINE = before


def _without_files(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a model of timm without those that name files or servers.

    A bundle may come from anybody, and timm before 1.0.26 runs the code in a ``checkpoint_path``.
    """
    return {
        key: value
        for key, value in arguments.items()
        if key not in ("checkpoint_path", "cache_dir") and not key.startswith("pretrained")
    }


def from_timm(name: str, arguments: Mapping[str, Any], bare: bool) -> nn.Module:
    """Build a model of timm; `arguments` as `timm.create_model` takes them."""
    timm = library("timm")
    if not bare:
        return timm.create_model(name, **arguments)
    with _offline():
        return timm.create_model(name, **_without_files(arguments))


def of_timm(name: str, arguments: Mapping[str, Any]) -> Own:
    """Return the configuration of a model of timm: its ``pretrained_cfg``."""
    # Only a built model of a hub or a folder has read its configuration.
    shape = {key: value for key, value in arguments.items() if key == "img_size"}
    how = library("timm").create_model(name, pretrained=False, **shape).pretrained_cfg
    channels, side, _ = how["input_size"]
    labels = how.get("label_names") or ()
    if size := shape.get("img_size"):
        side = size if isinstance(size, int) else size[0]
    mean, deviation = tuple(how["mean"]), tuple(how["std"])
    return Own(Preprocessing(channels, side, mean, deviation), tuple(map(str, labels)))


def from_torchvision(name: str, arguments: Mapping[str, Any], bare: bool) -> nn.Module:
    """Build a model of torchvision; `arguments` as `torchvision.models.get_model` takes them."""
    vision = library("torchvision")
    given = {
        key: value for key, value in arguments.items() if key not in ("weights", "num_classes")
    }
    weights = None if bare else arguments.get("weights")
    classes = arguments.get("num_classes")
    if bare and "weights_backbone" in signature(vision.models.get_model_builder(name)).parameters:
        given["weights_backbone"] = None  # by default they are downloaded
    if not weights:
        return vision.models.get_model(name, num_classes=classes, **given)
    network = vision.models.get_model(name, weights=weights, **given)
    _new_head(network, classes)
    return network


def _new_head(network: nn.Module, classes: int | None) -> None:
    """Replace a network's last linear layer by one for other classes."""
    name, old = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    if classes is not None and classes != old.out_features:
        network.set_submodule(name, nn.Linear(old.in_features, classes, old.bias is not None))


def of_torchvision(name: str) -> Own:
    """Return the preprocessing of a model of torchvision: that of its default weights."""
    how = library("torchvision").models.get_model_weights(name).DEFAULT.transforms()
    return Own(Preprocessing(3, how.crop_size[0], tuple(how.mean), tuple(how.std)))


def from_transformers(place: str, arguments: Mapping[str, Any], bare: bool) -> nn.Module:
    """Build an image classifier of transformers, with its weights unless `bare`.

    ``arguments["config"]`` is its configuration as a mapping.
    """
    transformers = _transformers()
    config = dict(arguments["config"])
    if bare:
        config = _without_kernels(config)
    config = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    auto = transformers.AutoModelForImageClassification
    if bare:
        with _offline():
            return auto.from_config(config, trust_remote_code=False)
    # Only a head for other classes may differ.
    model, loading = auto.from_pretrained(
        place, config=config, ignore_mismatched_sizes=True, output_loading_info=True,
        torch_dtype="float32", trust_remote_code=False,
    )  # fmt: skip
    wrong = [*loading["missing_keys"], *(key[0] for key in loading["mismatched_keys"])]
    if wrong and not arguments.get("new_head"):
        raise CrossferError(f"its weights lack {', '.join(sorted(wrong)[:3])}")
    return model


def _without_kernels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without code of a hub and files of timm; the architecture is the same."""
    kept = {
        key: value
        for key, value in config.items()
        if not (key.endswith("attn_implementation") and "/" in str(value))
    }
    if isinstance(inner := kept.get("model_args"), Mapping):
        kept["model_args"] = _without_files(inner)
    return kept


def config_of_transformers(place: str) -> dict[str, Any]:
    """Return the configuration of a model of transformers, as a mapping.

    Raises
    ------
    CrossferError
        If there is no such model in a folder or in a hub.
    """
    try:
        return dict(
            _transformers().AutoConfig.from_pretrained(place, trust_remote_code=False).to_dict()
        )
    except (OSError, ValueError) as error:
        raise CrossferError(
            f"model.network: {TRANSFORMERS}:{place}: no such folder with a config.json, nor found in a hub "
            f"({one_line(error)[:120]})"
        ) from None


def of_transformers(place: str) -> Own:
    """Return the configuration of a model of transformers: its preprocessor and ``id2label``."""
    config = config_of_transformers(place)
    names = {int(key): str(value) for key, value in (config.get("id2label") or {}).items()}
    classes = tuple(names[index] for index in sorted(names))
    if all(name.startswith("LABEL_") for name in classes):
        classes = ()  # default names
    processing = _transformers().image_processing_utils.BaseImageProcessor
    try:
        how, _ = processing.get_image_processor_dict(place)
    except OSError:
        raise CrossferError(
            "it has no preprocessor_config.json: add it, or train from another copy of the model"
        ) from None
    try:
        processor = _transformers().AutoImageProcessor.from_pretrained(
            place, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise CrossferError(f"its preprocessor cannot be built: {one_line(error)[:120]}") from None

    def of(key: str) -> Any:
        """Return a value of the processor: that of its file, or the default of its class."""
        return getattr(processor, key, None)

    size = (how.get("crop_size") or of("crop_size")) if of("do_center_crop") else None
    size = size or how.get("size") or config.get("image_size")
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    elif isinstance(size, (list, tuple)):
        size = size[0]
    elif hasattr(size, "height"):
        size = size.height
    if not isinstance(size, int):
        raise CrossferError("its preprocessor_config.json has no size; add it")
    channels = int(config.get("num_channels") or 3)
    mean, deviation = (0.0,) * channels, (1.0,) * channels
    if of("do_normalize"):
        mean, deviation = (
            tuple(v) if isinstance(v, (list, tuple)) else (v,) * channels
            for v in (of("image_mean"), of("image_std"))
        )
    white = round(255 * of("rescale_factor"), 9) if of("do_rescale") else 255.0
    if of("do_rescale") and of("rescale_offset"):  # EfficientNet's: from -1
        mean = tuple(value + 1 for value in mean)
    if of("include_top"):  # EfficientNet's: divided by the deviation once more
        deviation = tuple(value**2 for value in deviation)
    order = "BGR" if of("do_flip_channel_order") else "RGB"
    found = Preprocessing(channels, size, mean, deviation, white, order)  # pyrefly: ignore[bad-argument-type]  # which checks channels
    _check_processor(processor, found)
    return Own(found, classes)


def _check_processor(processor: Any, how: Preprocessing) -> None:
    """Refuse a processor of transformers that makes other pixels of an image of noise."""
    chance = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (1, *how.image_shape), dtype=torch.uint8, generator=chance)
    ours, name = normalise(noise, how), type(processor).__name__
    shown = noise[0].reshape(how.side, how.side, how.channels).permute(2, 0, 1)
    try:
        theirs = processor(
            shown.numpy(), return_tensors="pt", input_data_format="channels_first",
            do_resize=False, do_center_crop=False,
        )["pixel_values"]  # fmt: skip
    except Exception as error:
        raise CrossferError(
            f"its preprocessor ({name}) fails on a face: {one_line(error)}"
        ) from None
    if theirs.shape != ours.shape or (theirs - ours).abs().max() > 1e-3 * ours.abs().max():
        raise CrossferError(
            f"its preprocessor ({name}) does more than rescale, normalise and reorder colours, which "
            "crossfer cannot; name a factory whose network does it itself"
        )


def _transformers() -> Any:
    transformers = library(TRANSFORMERS)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
