"""Sources of networks: the study's, timm, torchvision, transformers, ONNX, a factory."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossfer.errors import CrossferError, one_line
from crossfer.networks import hubs
from crossfer.networks.preprocessing import Preprocessing
from crossfer.networks.study import study_cnn

STUDY, TIMM, TORCHVISION, TRANSFORMERS, ONNX, RUNTIME = (
    "study",
    "timm",
    "torchvision",
    "transformers",
    "onnx",
    "onnxruntime",
)
LIBRARIES = (TIMM, TORCHVISION, TRANSFORMERS, ONNX, RUNTIME)
"""What stands before the colon where it is no package of Python."""


@dataclass(frozen=True)
class Spec:
    """How to build a network, its weights aside.

    Parameters
    ----------
    network
        ``study``; ``timm:NAME``, ``torchvision:NAME``, ``transformers:FOLDER_OR_ID``, ``onnx:FILE``,
        ``onnxruntime:FILE``; or a factory, ``package.module:function``.
    arguments
        For it, by keyword: texts, numbers, lists and mappings of them.
    folder
        Where files and folders are looked for, and factories too, after Python's own path.
    grown
        Rows that were added to a linear layer, by its name: see `crossfer.networks.growth.grow`.
    projected
        Random ReLU projections that were put before a linear layer, by its name: see `project`.
    """

    network: str = STUDY
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    grown: Mapping[str, int] = field(default_factory=dict)
    projected: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What errors call it."""
        return "the study's network" if self.network == STUDY else self.network

    @property
    def kind(self) -> str:
        """What stands before the colon: the library, or the package of a factory."""
        return self.network.partition(":")[0]

    @property
    def path(self) -> Path:
        """What stands behind the colon, as a path that starts in `folder`."""
        return (self.folder or Path()) / Path(self.network.partition(":")[2]).expanduser()

    @property
    def place(self) -> str:
        """What stands behind the colon: a folder as it is found from here, or what is none as it is."""
        return str(self.path) if self.path.is_dir() else self.network.partition(":")[2]

    @property
    def file(self) -> Path | None:
        """The file that the network is read from, for a source that needs one."""
        return self.path if self.kind in (ONNX, RUNTIME) else None

    def of_file(self, name: str) -> Spec:
        """Return the same for a copy of its file, beside whatever speaks of it."""
        return replace(self, network=f"{self.kind}:{name}", folder=None)

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        folder = str(self.folder.resolve()) if self.folder else None
        return {**asdict(self), "folder": folder}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], beside: Path) -> Spec:
        """Read what `as_json` wrote; a file that it needs lies in the folder `beside`."""
        spec = cls(**content)
        place = beside if spec.file else Path(spec.folder) if spec.folder else None
        return replace(spec, folder=place)

    def build(self, bare: bool = False) -> nn.Module:
        """Build the network, with whatever weights its source gives it.

        Parameters
        ----------
        bare
            Its weights will be replaced, so that none need be fetched or read.

        Raises
        ------
        CrossferError
            If there is no such source, or it fails.
        """
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
            from crossfer.networks.onnx_files import RuntimeNetwork, from_onnx  # another library

            if kind == RUNTIME:
                return RuntimeNetwork.of(self.file)
            return from_onnx(self.file, check=not bare)
        return _function(self.network, self.folder)(**self.arguments)

    def own(self) -> hubs.Own:
        """Return what the model's own configuration says, as far as it has one.

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
                from crossfer.networks.onnx_files import of_onnx

                return of_onnx(self.file)
        except Exception as error:
            raise self._failed(error) from None
        return hubs.Own()

    def _failed(self, error: Exception) -> CrossferError:
        if isinstance(error, CrossferError) and str(error).startswith("model."):
            return error
        return CrossferError(f"model.network: {self.name} failed: {one_line(error)}")


def widen(network: nn.Module, name: str, rows: int) -> nn.Linear:
    """Add outputs to a linear layer, in place; their weights are zero.  Return the new layer."""
    old = network.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise CrossferError(
            f"model: its last layer {name} is a {type(old).__name__}; only a linear layer can be "
            "extended by a class"
        )
    new = nn.Linear(
        old.in_features,
        old.out_features + rows,
        old.bias is not None,
        old.weight.device,
        old.weight.dtype,
    )
    with torch.no_grad():
        for wide, narrow in zip(new.parameters(), old.parameters(), strict=True):
            wide.zero_()[: len(narrow)] = narrow
            wide.requires_grad_(narrow.requires_grad)
    network.set_submodule(name, new.train(old.training))
    return new


def project(network: nn.Module, name: str, count: int) -> nn.Sequential:
    """Put random ReLU projections before a linear layer, in place; all weights are zero.

    Parameters
    ----------
    name
        Of the layer; in its place come ``projection``, ``relu``, and ``head`` with as many outputs.
    count
        Of the projections.
    """
    old = network.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise CrossferError(
            f"model: its last layer {name} is a {type(old).__name__}; random projections need a "
            "linear last layer"
        )
    like: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
    new = nn.Sequential(
        OrderedDict(
            projection=nn.Linear(old.in_features, count, bias=False, **like),
            relu=nn.ReLU(),
            head=nn.Linear(count, old.out_features, **like),
        )
    )
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_().requires_grad_(old.weight.requires_grad)
    network.set_submodule(name, new.train(old.training))
    return new


def _function(name: str, folder: Path | None) -> Any:
    """Import a factory, ``package.module:function``."""
    module, _, function = name.partition(":")
    if folder and (place := str(folder.resolve())) not in sys.path:
        sys.path.append(place)
    found: Any = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    return found
