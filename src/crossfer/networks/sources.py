"""Sources of networks: the study's, timm, torchvision, transformers, ONNX, a factory."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init

from crossfer.errors import CrossferError, one_line
from crossfer.networks import hubs
from crossfer.networks.experts import Experts
from crossfer.networks.hubs import TRANSFORMERS
from crossfer.networks.layers import plain_linear
from crossfer.networks.onnx_files import RUNTIME, RuntimeNetwork, from_onnx, of_onnx
from crossfer.networks.preprocessing import Preprocessing
from crossfer.networks.study import study_cnn

STUDY, TIMM, TORCHVISION, ONNX = "study", "timm", "torchvision", "onnx"
LIBRARIES = (TIMM, TORCHVISION, TRANSFORMERS, ONNX, RUNTIME)
"""Kinds of sources that are not Python packages: the part before the colon."""
_FACTORIES: set[Path] = set()
"""Folders from which factories were imported."""
_ADDED: list[str] = []
"""Those of them that were added to `sys.path`: behind the user's own, the one that was used last first."""


@dataclass(frozen=True)
class Spec:
    """How to build a network, without its weights.

    Parameters
    ----------
    network
        ``study``; ``timm:NAME``, ``torchvision:NAME``, ``transformers:FOLDER_OR_ID``, ``onnx:FILE``,
        ``onnxruntime:FILE``; or a factory, ``package.module:function``.
    arguments
        Keyword arguments of the source: strings, numbers, lists and mappings of them.  For an ONNX file that
        reads images of any size: ``side``.
    folder
        Folder of relative files and folders, and of factories that are not on Python's path.
    grown
        For a linear layer, the number of added rows: see `crossfer.networks.growth.grow`.
    projected
        For a linear layer, the number of random ReLU projections before it: see `project`.
    router
        The head of the first of two networks of this form, which are mixed: see
        `crossfer.networks.experts.Experts`.  Empty: one network.
    """

    network: str = STUDY
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    grown: Mapping[str, int] = field(default_factory=dict)
    projected: Mapping[str, int] = field(default_factory=dict)
    router: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.folder, str):
            object.__setattr__(self, "folder", Path(self.folder))

    @property
    def name(self) -> str:
        """Its name in error messages."""
        return "the study's network" if self.network == STUDY else self.network

    @property
    def kind(self) -> str:
        """The part before the colon: the library, or the package of a factory."""
        return self.network.partition(":")[0]

    @property
    def factory(self) -> str:
        """Its name if it is a factory, whose code is run to build it; otherwise empty."""
        return "" if self.network == STUDY or self.kind in LIBRARIES else self.network

    @property
    def path(self) -> Path:
        """The part after the colon as a path, relative to `folder`."""
        return (self.folder or Path()) / Path(self.network.partition(":")[2]).expanduser()

    @property
    def place(self) -> str:
        """The part after the colon: the path of a folder if there is one, otherwise the unchanged name."""
        return str(self.path) if self.path.is_dir() else self.network.partition(":")[2]

    @property
    def file(self) -> Path | None:
        """The file of the network, for ONNX sources."""
        return self.path if self.kind in (ONNX, RUNTIME) else None

    def of_file(self, name: str) -> Spec:
        """Return the same for a copy of its file, in the folder of the description."""
        return replace(self, network=f"{self.kind}:{name}", folder=None)

    def as_json(self) -> dict[str, Any]:
        """Return values for JSON; `from_json` reads them."""
        needless = self.network == STUDY or self.kind in (TIMM, TORCHVISION)  # they have no files
        folder = str(self.folder.resolve()) if self.folder and not needless else None
        return {**asdict(self), "folder": folder}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], beside: Path) -> Spec:
        """Read what `as_json` wrote; an ONNX file is in the folder `beside`.

        A factory that is not where it was is looked for in that folder and in the one around it: both may
        have been moved.
        """
        spec = cls(**content)
        if spec.file:
            return replace(spec, folder=beside)
        if not spec.factory:
            return spec
        top = spec.kind.partition(".")[0]
        places = [place for place in (spec.folder, beside, beside.parent) if place is not None]
        if spec.folder is None and find_spec(top):
            return spec
        return replace(spec, folder=next((p for p in places if _has(p, top)), spec.folder))

    def build(self, bare: bool = False) -> nn.Module:
        """Build the network, with the weights of its source.

        Parameters
        ----------
        bare
            Whether its weights will be replaced, so that they need not be loaded.

        Raises
        ------
        CrossferError
            If the source does not exist or fails.
        """
        if self.router:
            old, new = (replace(self, router="").build(bare) for _ in range(2))
            return Experts(old, new, widen(old, self.router, 1).out_features - 1)
        try:
            network = self._built(bare)
        except Exception as error:
            raise self._failed(error) from None
        if not isinstance(network, nn.Module):
            raise CrossferError(
                f"model.network: {self.name} returns {type(network).__name__}, not a torch.nn.Module"
            )
        later = {name for name in self.grown if name.rpartition(".")[0] in self.projected}
        for layer in self.grown.keys() - later:
            widen(network, layer, self.grown[layer])
        for layer, count in self.projected.items():
            project(network, layer, count)
        for layer in later:
            widen(network, layer, self.grown[layer])
        return network

    def _built(self, bare: bool) -> Any:
        kind, _, name = self.network.partition(":")
        if self.network == STUDY:
            return study_cnn(**self.arguments)
        if kind == TIMM:
            return hubs.from_timm(name, self.arguments, bare)
        if kind == TORCHVISION:
            return hubs.from_torchvision(name, self.arguments, bare)
        if kind == TRANSFORMERS:
            return hubs.from_transformers(self.place, self.arguments, bare)
        if self.file:
            if kind == RUNTIME:
                return RuntimeNetwork.of(self.file, **self.arguments)
            return from_onnx(self.file, check=not bare, **self.arguments)
        return _function(self.network, self.folder)(**self.arguments)

    def own(self) -> hubs.Own:
        """Return the model's own configuration, as far as it has one.

        Raises
        ------
        CrossferError
            If there is no such model.
        """
        kind, _, name = self.network.partition(":")
        try:
            if self.network == STUDY:
                return hubs.Own(Preprocessing())
            if kind == TIMM:
                return hubs.of_timm(name, self.arguments)
            if kind == TORCHVISION:
                return hubs.of_torchvision(name)
            if kind == TRANSFORMERS:
                return hubs.of_transformers(self.place)
            if self.file:
                return of_onnx(self.file)
        except Exception as error:
            raise self._failed(error) from None
        return hubs.Own()

    def _failed(self, error: Exception) -> CrossferError:
        if isinstance(error, CrossferError) and str(error).startswith("model."):
            return error
        return CrossferError(f"model.network: {self.name} failed: {one_line(error)}")


def widen(network: nn.Module, name: str, rows: int) -> nn.Linear:
    """Add outputs with zero weights to a linear layer, in place; return the new layer."""
    old = plain_linear(network, name)
    new = skip_init(
        nn.Linear,
        old.in_features,
        old.out_features + rows,
        bias=old.bias is not None,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    assert isinstance(new, nn.Linear)
    with torch.no_grad():
        for wide, narrow in zip(new.parameters(), old.parameters(), strict=True):
            wide.zero_()[: len(narrow)] = narrow
            wide.requires_grad_(narrow.requires_grad)
    network.set_submodule(name, new.train(old.training))
    return new


def project(network: nn.Module, name: str, count: int) -> nn.Sequential:
    """Add random ReLU projections before a linear layer, in place, with all weights zero.

    Parameters
    ----------
    name
        Name of the layer; it becomes a sequence of ``projection``, ``relu`` and ``head``.
    count
        Number of projections.
    """
    old = plain_linear(network, name)
    like: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
    new = nn.Sequential(
        OrderedDict[str, nn.Module](
            projection=skip_init(nn.Linear, old.in_features, count, bias=False, **like),
            relu=nn.ReLU(),
            head=skip_init(nn.Linear, count, old.out_features, **like),
        )
    )
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_().requires_grad_(old.weight.requires_grad)
    network.set_submodule(name, new.train(old.training))
    return new


def _function(name: str, folder: Path | None) -> Any:
    """Import a factory, ``package.module:function``, from a folder if it is there."""
    module, _, function = name.partition(":")
    if folder:
        _look_first_in(folder.resolve())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # what the factory's module needs itself
        top = module.partition(".")[0]
        places = f"in {folder} or on" if folder else "on"
        raise CrossferError(
            f"no module {error.name} {places} Python's path; put {top}.py there, or in a bundle's folder or "
            "beside it"
        ) from None
    for part in function.split("."):
        found = getattr(found, part)
    return found


def _has(folder: Path, module: str) -> bool:
    return (folder / f"{module}.py").is_file() or (folder / module / "__init__.py").is_file()


def _look_first_in(folder: Path) -> None:
    """Let modules be imported from a folder first, also if another factory's had some of the same names."""
    names = {file.stem for file in folder.glob("*.py")}
    names |= {file.parent.name for file in folder.glob("*/__init__.py")}
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        places = Path(getattr(sys.modules[name], "__file__", None) or "").parents
        home = next((place for place in places if place == folder or place in _FACTORIES), folder)
        if home != folder:
            del sys.modules[name]
    _FACTORIES.add(folder)
    place = str(folder)
    if place in _ADDED:
        _ADDED.remove(place)
        with suppress(ValueError):  # removed by somebody else
            sys.path.remove(place)
    if place not in sys.path:
        others = [sys.path.index(other) for other in _ADDED if other in sys.path]
        sys.path.insert(min(others, default=len(sys.path)), place)
        _ADDED.append(place)
