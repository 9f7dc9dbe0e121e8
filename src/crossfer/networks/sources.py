"""Where networks come from: the study's, or a factory of anybody's."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from crossfer.errors import CrossferError, one_line
from crossfer.networks.study import study_cnn

STUDY = "study"


@dataclass(frozen=True)
class Spec:
    """How to build a network, its weights aside.

    Parameters
    ----------
    source
        ``study``, or a factory: ``package.module:function``.
    arguments
        For it, by keyword: texts, numbers, lists and mappings of them.
    folder
        Where Python looks for a factory too, after its own path.
    """

    source: str = STUDY
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return "the study's network" if self.source == STUDY else self.source

    def build(self) -> nn.Module:
        """Build the network, with whatever weights its source gives it.

        Raises
        ------
        CrossferError
            If there is no such source, or it fails.
        """
        try:
            if self.source == STUDY:
                return study_cnn(**self.arguments)
            network = _function(self.source, self.folder)(**self.arguments)
        except Exception as error:
            raise CrossferError(f"model.network: {self.name} failed: {one_line(error)}") from None
        if not isinstance(network, nn.Module):
            raise CrossferError(
                f"model.network: {self.name} returns {type(network).__name__}, not a torch.nn.Module"
            )
        return network


def _function(name: str, folder: Path | None) -> Any:
    """Import a factory, ``package.module:function``."""
    module, _, function = name.partition(":")
    if folder and (place := str(folder.resolve())) not in sys.path:
        sys.path.append(place)
    found: Any = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    return found
