"""A classifier cut in two: what turns faces into features, and what is made of these, the *rest*.

The rest is a classifier that reads features in the place of faces, so that everything that trains or measures
classifiers works on it; it shares the network's layers, under their names.  A plain sequence is cut between
two of its layers.  Of any other network it is not known what happens between its modules, so a cut is tried
on a few images, and taken only where it holds.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from crossfer.errors import CrossferError
from crossfer.networks.classifier import Classifier
from crossfer.networks.layers import layers_in_order, training_mode
from crossfer.networks.preprocessing import Preprocessing, normalise

ROUNDING = 1e-3
"""Of the largest value, by which results may differ: kernels for other sizes of batches round otherwise."""
SAME = 1e-5
"""The same where the kernels are the same."""
THE_SAME_IN_TRAINING = tuple(
    f"torch.nn.modules.{kind}" for kind in ("activation", "pooling", "flatten")
)
"""Where PyTorch defines modules that answer in training as in evaluation."""


LARGEST = 2**18
"""Numbers that may be kept of an image, 1 MB: more are made faster than they are fetched."""


class Split(NamedTuple):
    """A classifier cut before what trains: ``rest(frozen(x))`` is ``classifier(x)``.

    `layer` is the first module behind the cut, by its name in the network.
    """

    frozen: nn.Module
    rest: Classifier
    layer: str


def split_frozen(classifier: Classifier, images: Tensor) -> Split | None:
    """Cut a classifier before its first layer that trains.

    A plain sequence is cut there as it stands.  Any other network is cut before the last of its modules of
    which, on a few images, all of this is true: what it is given depends on no weight that trains, is the
    same in training as in evaluation, and the same for an image whatever the others are; and the network's
    answers follow from it alone, in training and in evaluation.  Where there is none, the answer is None.

    Parameters
    ----------
    classifier
        Left as it was.
    images
        Of the shape that it is shown, on its device: uint8 (N, H, W) or (N, H, W, 3), or float (N, …), what
        the network is given of them.
    """
    network = classifier.network
    if all(parameter.requires_grad for parameter in network.parameters()):
        return None
    if is_sequence(network):
        parts = layers_in_order(network)
        trains = [any(p.requires_grad for p in layer.parameters()) for _, layer in parts]
        if index := trains.index(True):
            first, last = (nn.Sequential(OrderedDict(p)) for p in (parts[:index], parts[index:]))
            if _share_a_mode(first, last):
                return None
            return Split(first, classifier.around(last), parts[index][0])
    with torch.enable_grad(), as_it_was(classifier):
        trial = ForwardTrace(classifier, noise(images, classifier.preprocessing), training_mode)
        for call in reversed(trial.calls):
            if trial.is_behind_frozen(call) and trial.is_function(call):
                for rest in trial.rests(call):
                    return Split(Body(network, call.name), rest, call.name)
    return None


def noise(like: Tensor, how: Preprocessing) -> Tensor:
    """Return three images of noise as a network is given them, float (3, …), like some that it is shown.

    Each has a mean and a deviation of its own, as augmented images do.
    """
    shown = normalise(like[:1], how) if like.dtype == torch.uint8 else like[:1]
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(3, *shown.shape[1:], generator=generator)
    mean, deviation = torch.rand(2, 3, *[1] * (noisy.ndim - 1), generator=generator)
    return torch.addcmul(mean, noisy, deviation + 0.5).to(shown)


@contextmanager
def as_it_was(network: nn.Module) -> Iterator[None]:
    """Put a network's modes and buffers, and the random generators, back in the end."""
    modes = {module: module.training for module in network.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    devices = {parameter.device for parameter in network.parameters()}
    with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def is_sequence(module: nn.Module) -> bool:
    """Tell whether a module does nothing but ask its children, one after the other."""
    hooked = module._forward_pre_hooks or module._forward_hooks
    plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return plain and not hooked


def _share_a_mode(first: nn.Module, last: nn.Module) -> bool:
    """Tell whether a module stands in two networks that may answer otherwise in training.

    It would be in training mode in the first as soon as the last trains.
    """
    both = set(first.modules()) & set(last.modules())
    return any(not type(module).__module__.startswith(THE_SAME_IN_TRAINING) for module in both)


def _trains(module: nn.Module) -> bool | None:
    """Tell whether any weight of a module trains; None where it has none."""
    learns = [parameter.requires_grad for parameter in module.parameters()]
    return any(learns) if learns else None


def alike(found: Tensor, wanted: Tensor | None, tolerance: float = ROUNDING) -> bool:
    """Tell whether two results are the same but for rounding."""
    if wanted is None or found.shape != wanted.shape:
        return False
    difference = (found.detach().float() - wanted.detach().float()).abs().max()
    return bool(difference <= tolerance * wanted.detach().abs().max())


class Body(nn.Module):
    """Gives what a module of a network is given; what lies behind is not calculated."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, …) of normalised images, float (N, C, H, W)."""

        def leave(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            raise _Reached(inputs[0])

        hook = self.network.get_submodule(self.layer).register_forward_pre_hook(leave)
        try:
            self.network(images)
        except _Reached as reached:
            return reached.given
        finally:
            hook.remove()
        raise CrossferError(
            f"model: the network has {self.layer}, but does not call it (forward reads its weight?); call it "
            "in forward, or name another head, model.FC: [its name]"
        )


class _Reached(BaseException):
    """Tells what a module is given; no network's own ``except Exception`` stops it."""

    def __init__(self, given: Tensor) -> None:
        self.given: Tensor = given


class Call(NamedTuple):
    """A module was called: the how-manieth call it was, and the first argument if that is a tensor."""

    number: int
    name: str
    module: nn.Module
    given: Tensor | None


class ForwardTrace:
    """A classifier, run once on a few images: which modules were called, with what, and what they made of it.

    Parameters
    ----------
    classifier
        Its buffers and modes change (`as_it_was`).
    images
        Normalised, float (N, C, H, W), N at least 3.
    mode
        Puts a network into the mode in which cuts are tried, beside evaluation.
    """

    def __init__(
        self, classifier: Classifier, images: Tensor, mode: Callable[[nn.Module], object]
    ) -> None:
        self.classifier, self.images, self.mode = classifier, images, mode
        names = {module: name for name, module in classifier.network.named_modules()}
        self.calls: list[Call] = []
        self.made: dict[nn.Module, list[Any]] = {}

        def before(module: nn.Module, given: tuple[Any, ...]) -> None:
            first = given[0] if given and isinstance(given[0], Tensor) else None
            self.calls.append(Call(len(self.calls), names[module], module, first))

        def after(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
            self.made.setdefault(module, []).append(made)

        hooks = [module.register_forward_pre_hook(before) for module in names]
        hooks += [module.register_forward_hook(after) for module in names]
        mode(classifier)
        try:
            self.answers = self._answers(classifier, images)
        finally:
            for hook in hooks:
                hook.remove()
        self.times = Counter(call.module for call in self.calls)
        self.last = {call.module: call.number for call in self.calls}

    def is_behind_frozen(self, call: Call) -> bool:
        """Tell whether a module is called once, and layers before it, none of which trains, have weights."""
        before = (other.module for other in self.calls[: call.number])
        return (
            call.given is not None
            and not call.given.requires_grad
            and bool(call.name)
            and self.times[call.module] == 1
            and any(_trains(module) is False for module in before)
        )

    def is_function(self, call: Call) -> bool:
        """Tell whether a module is given a function of each image, whatever the mode and the other images."""
        body = Body(self.classifier.network, call.name)
        with as_it_was(self.classifier.eval()):
            try:
                given, of_few = body(self.images), body(self.images[:2])
            except Exception:  # noqa: BLE001  (somebody's network)
                return False
        return (
            len(given) == len(self.images)
            and given[0].numel() <= LARGEST
            and alike(given, call.given)
            and alike(of_few, given[:2])
        )

    def rests(self, call: Call) -> Iterator[Classifier]:
        """Yield classifiers that give the same answers of what a module is given: the simplest first."""
        assert call.given is not None
        for form in (self._alone, self._without_what_is_before):
            self.mode(self.classifier)
            try:
                rest = self.classifier.around(form(call))
                with as_it_was(
                    self.classifier
                ):  # what is no number may have come to its statistics
                    if self._gives_the_answers(rest, call.given):
                        yield rest
            except Exception:  # noqa: BLE001  (somebody's network, run in parts)
                continue

    def _gives_the_answers(self, rest: Classifier, given: Tensor) -> bool:
        """Tell whether a rest answers as the classifier does: in both modes, for other numbers of images."""
        return alike(self._answers(rest, given), self.answers, SAME) and alike(
            rest.eval()(given[:2]), self.classifier.eval()(self.images[:2])
        )

    @staticmethod
    def _answers(network: Classifier, given: Tensor) -> Tensor:
        torch.manual_seed(0)  # dropout behind the cut draws the same
        return network(given)

    def _alone(self, call: Call) -> nn.Module:
        """Return a module, and what follows it in the sequences that it stands in, as a plain sequence."""

        def of(module: nn.Module, name: str, *below: str) -> nn.Sequential:
            parts = [(name, module.get_submodule(name))]
            if is_sequence(module):
                children = layers_in_order(module)
                parts = children[[child for child, _ in children].index(name) :]
            if below:
                parts[0] = name, of(parts[0][1], *below)
            return nn.Sequential(OrderedDict(parts))

        return of(self.classifier.network, *call.name.split("."))

    def _without_what_is_before(self, call: Call) -> nn.Module:
        """Return a copy of the network, around the same layers, that goes on from what a module is given.

        Its own code runs, but frozen modules that it has called before are not asked: in their place
        something of the same shape comes that is no number, so that the answers are none either if they
        follow from more than from what the module is given.
        """
        network, count, carried = self.classifier.network, len(self.images), _Carried(self.images)
        copies: dict[nn.Module, nn.Module] = {
            module: _NoNumbers(made, count, carried)
            for module, made in self.made.items()
            if self.last[module] < call.number
            and call.module not in module.modules()
            and not _trains(module)
            and all(isinstance(m, Tensor) and m.ndim and len(m) % count == 0 for m in made)
        }

        def copied(module: nn.Module) -> nn.Module:
            if module not in copies:
                children = {name: copied(child) for name, child in layers_in_order(module)}
                same = all(child is module._modules[name] for name, child in children.items())
                if same and module not in (network, call.module):
                    return module
                copies[module] = twin = _shallow(module)
                twin._modules = {**module._modules, **children}
                twin._forward_pre_hooks = OrderedDict(module._forward_pre_hooks)
            return copies[module]

        whole = copied(network)
        whole.register_forward_pre_hook(carried.take)
        copies[call.module].register_forward_pre_hook(carried.give)
        return whole


def _shallow(module: nn.Module) -> nn.Module:
    """Return a copy of a module that has the same children, and of which copies keep the hooks."""
    return _Graph(module, module.graph) if isinstance(module, GraphModule) else copy.copy(module)


class _Graph(GraphModule):
    """A network of an ONNX file; PyTorch's own copies of it would lose their hooks."""

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphModule:
        twin = super().__deepcopy__(memo)
        twin._forward_pre_hooks = copy.deepcopy(self._forward_pre_hooks, memo)
        return twin


class _Carried:
    """Carries features past the modules before the cut."""

    def __init__(self, images: Tensor) -> None:
        self.nothing = images.new_full((), torch.nan)
        self.shape, self.features = images.shape[1:], torch.empty(0)

    def take(self, network: nn.Module, given: tuple[Tensor]) -> Tensor:
        """Take the features that a network is given; show it images of no number."""
        (self.features,) = given
        return self.nothing.expand(len(self.features), *self.shape)

    def give(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give a module the features."""
        return self.features, *given[1:]


class _NoNumbers(nn.Module):
    """Stands for a frozen module before the cut: gives something of the shape that it gives, in turn."""

    def __init__(self, made: Sequence[Tensor], images: int, carried: _Carried) -> None:
        super().__init__()
        self.carried, self.turn = carried, 0
        self.shapes = [(len(one) // images, *one.shape[1:]) for one in made]
        self.nothing = [one.new_full((), _no_number(one)) for one in made]

    def forward(self, *given: Any, **named: Any) -> Tensor:
        """Return a tensor of no number, which takes no memory."""
        of_one, *shape = self.shapes[self.turn]
        nothing = self.nothing[self.turn]
        self.turn = (self.turn + 1) % len(self.shapes)
        return nothing.expand(of_one * len(self.carried.features), *shape)


def _no_number(like: Tensor) -> float:
    return torch.nan if like.is_floating_point() else 0
