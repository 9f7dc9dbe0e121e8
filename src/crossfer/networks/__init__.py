"""Classifiers: networks with classes, preprocessing and named layers; building, saving and loading them."""

from crossfer.networks.classifier import Classifier, load
from crossfer.networks.config import NetworkConfig
from crossfer.networks.growth import grow
from crossfer.networks.layers import LAYERS, NamedLayers
from crossfer.networks.preprocessing import Normalisation, Preprocessing, normalise
from crossfer.networks.sources import Spec
from crossfer.networks.study import study_cnn
from crossfer.networks.trial import check_network

__all__ = [
    "LAYERS",
    "Classifier",
    "NamedLayers",
    "NetworkConfig",
    "Normalisation",
    "Preprocessing",
    "Spec",
    "check_network",
    "grow",
    "load",
    "normalise",
    "study_cnn",
]
