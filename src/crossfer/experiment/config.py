"""The configuration of an experiment: read from YAML and validated before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from crossfer.classes import PRESETS, ClassSet
from crossfer.datasets.folds import LEAST, ONE_SUBJECT, Folds
from crossfer.datasets.preparation import Preparation
from crossfer.errors import CrossferError
from crossfer.experiment.names import EXPERIMENT, LOCK
from crossfer.memory.closed_form import ClosedForm
from crossfer.memory.replay import FeatureReplay
from crossfer.networks import NetworkConfig
from crossfer.networks.config import BUNDLE
from crossfer.networks.description import is_description, read_description
from crossfer.run_folder import IMAGE_COLUMNS
from crossfer.strategies import BASELINE, DEFAULT, DEPLOYED, STRATEGIES, starts, strategy_called
from crossfer.strategy import Strategy
from crossfer.training.recipe import NAMED, Recipe
from crossfer.validation import adapter, first_error
from crossfer.yaml_files import read_yaml

Seed = Annotated[int, Field(ge=0, lt=2**32)]


Selection = Literal["trained-on", "source", "target", "both", "last"]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    if not TYPE_CHECKING:  # a type checker knows the fields

        def __init__(self, **content: Any) -> None:
            try:
                super().__init__(**content)
            except ValidationError as error:
                raise CrossferError(first_error(error, type(self))) from None

        # Mappings and what is part of another are validated without it, so that errors keep their place.
        __init__.__pydantic_base_init__ = True


_Options = create_model(  # pyrefly: ignore[no-matching-overload]  # the options of `Preparation`, declared there
    "_Options",
    __base__=_Checked,
    **{
        field.name: (
            get_type_hints(Preparation)[field.name],
            Field(
                Preparation.__dict__.get(field.name, {}),
                alias="as" if field.name == "reader" else None,
            ),
        )
        for field in fields(Preparation)
    },
)


class DatasetConfig(_Options):
    """A dataset: a prepared one, or a raw one with how to prepare it, see `Preparation`.

    Paths are relative to the data root (``data`` or ``--data``).
    """

    path: Path
    name: str | None = None

    def preparation(
        self, channels: int = Preparation.channels, side: int = Preparation.side
    ) -> Preparation:
        """Return how to prepare it, if it is raw, for a network that reads faces of this shape."""
        own = {field.name: getattr(self, field.name) for field in fields(Preparation)}
        read: dict[str, Any] = {"channels": channels, "side": side}
        left = {key: value for key, value in read.items() if key not in self.model_fields_set}
        return Preparation(**own | left)

    @model_validator(mode="after")
    def _preparation_is_valid(self) -> Self:
        self.preparation()
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write only what the user gave, without defaults, so that it reads back the same."""
        given = self.model_fields_set | ({"as"} if "reader" in self.model_fields_set else set())
        return {key: value for key, value in write(self).items() if key in given}


def _as_dataset(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | Path) else value


def _as_network(value: Any) -> Any:
    if isinstance(value, str) and is_description(value):
        return read_description(Path(value).expanduser())
    if isinstance(value, str):
        is_path = "/" in value and ":" not in value
        return {"network": f"{BUNDLE}:{value}" if is_path else value}
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_strategy(value: Any) -> Any:
    return strategy_called(value) if isinstance(value, str) else value


def _as_classes(value: Any) -> ClassSet:
    try:
        classes = ClassSet.of(value)
    except CrossferError as error:
        raise ValueError(str(error).removeprefix("classes: ")) from None
    if taken := set(classes.names) & set(IMAGE_COLUMNS):
        raise ValueError(
            f"no class can be called {min(taken)}, because the predictions have such a column; "
            "rename it"
        )
    return classes


def _as_folds(value: Any) -> Any:
    several = value if isinstance(value, Mapping) else {"": value}
    for one in several.values():
        whole = isinstance(one, int) and not isinstance(one, bool) and one >= LEAST
        if not (whole or one == ONE_SUBJECT or (one is None and value is None)):
            raise ValueError(
                f"an integer of at least {LEAST} or {ONE_SUBJECT}, for all targets or by target: "
                "{jaffe: 5}"
            )
    return value


ClassesField = Annotated[
    ClassSet, BeforeValidator(_as_classes), PlainSerializer(ClassSet.as_config)
]
DatasetField = Annotated[DatasetConfig, BeforeValidator(_as_dataset)]
NetworkField = Annotated[NetworkConfig, BeforeValidator(_as_network)]
StrategyField = Annotated[Strategy, BeforeValidator(_as_strategy)]
FoldsField = Annotated[Folds | dict[str, Folds] | None, BeforeValidator(_as_folds)]
Fraction = Annotated[float, Field(gt=0, le=1)]


EVERY = "default"
"""The key of `Experiment.recipes` for all strategies."""

OF_LABELS = frozenset({"label_smoothing", "logit_adjustment"})
"""Keys of a recipe that change the loss of labels."""


class Experiment(_Checked):
    """One source, one or more targets, and the strategies to compare.

    Parameters
    ----------
    name
        Used in titles.
    data
        The folder that dataset paths are relative to.
    cache
        A folder of runs shared by several experiments, also simultaneously; by default each has its own.
    source, targets
        Datasets; a string is a path.
    memory
        A memory file of the deployed model (``crossfer remember``), which replaces the source's training
        images for strategies that use one. By default each baseline writes one, if the source has training
        images.
    classes
        The networks' classes: a preset (``fer7``, ``fer8``, ``valence3``, ``rafdb11``), a list of labels,
        or a mapping from classes to labels. Images whose label is in no class are left out and counted.
    model
        The network: see `crossfer.networks.NetworkConfig`; a string is its `network`, the path of a YAML or
        JSON file with these keys, or the path of a bundle or a run if it contains a slash and no colon.
    strategies
        Names of known strategies, or points of the space: ``{name: …, start: …, layers: …, data: …}``.
        The baseline BL always runs; with deployed weights it is that network. By default the study's five
        strategies and MIX+KD.
    fractions
        Fractions of the target training set, each above 0 and at most 1.
    seeds
        Every run is repeated for each seed.
    recipes
        Changes to the default recipes: by strategy name, and ``default`` for all of them. A strategy's own
        ``recipe`` changes ``default`` (a `Recipe` sets every key), and ``recipes`` by its name changes both.
        For BL and FU also the name of a recipe, as in ``{BL: strong}``: ``quick``, the default, ``strong`` or
        ``long``.
    selection
        Rule for the epoch to keep: the latest that is not shown to be worse than the best (see
        `crossfer.selection`) on the validation sets of the training data (``trained-on``), or of
        ``source``, ``target`` or ``both``; ``last``: the last epoch. Test sets are never used. Strategies
        trained on the source alone (the baseline) always use the source, merged ones both; strategies
        without labels keep the last epoch.
    folds
        Cross-validation, for targets with few people: ``5``, or ``leave-one-subject-out``; for some targets
        only, by their names: ``{jaffe: 5}``.  Every image is tested once, by a network that has not seen
        its subject, and all these answers are measured as one test set.  The baseline is trained once.
    protocols
        With several targets, in addition to each target alone: ``together``, all targets as one;
        ``in-turn``, one after the other, each strategy continuing from its last result with all earlier
        datasets as past data; ``leave-one-out``, the baseline trained on all datasets but one, for each.
    copies
        Test images with copies in a training set: ``count`` them, ``drop`` them from the measurements
        (without retraining), or ``ignore`` them: the search time grows with the square of the number of
        images (36,000: seconds; a million: hours). ``auto`` counts them for up to 200,000 images, except
        drawn stand-ins.
    device, precision, deterministic
        Device, arithmetic precision, and whether a GPU must give the same bits every time: see
        `crossfer.machine`.
    devices
        Number of devices of this machine that train one network: GPUs, or processes on a CPU. Each has a
        part of every batch. Only rounding changes.  See `crossfer.training.devices`.
    tracking
        Where to log parameters, curves, metrics with intervals and bundles: ``mlflow``; or ``tensorboard``
        (curves only); or both, as a list.  See `crossfer.experiment.tracking`.
    """

    name: str
    data: Path | None = None
    cache: Path | None = None
    source: DatasetField
    targets: list[DatasetField] = Field(min_length=1)
    memory: Path | None = None
    classes: ClassesField = PRESETS["fer7"]
    model: NetworkField = NetworkConfig()
    strategies: list[StrategyField] = Field(list(DEFAULT), min_length=1, validate_default=True)
    fractions: list[Fraction] = Field(default=[0.5, 1.0], min_length=1)
    seeds: list[Seed] = Field(default=[0], min_length=1)
    recipes: dict[str, dict[str, Any]] = {}
    selection: Selection = "trained-on"
    folds: FoldsField = None
    protocols: list[Literal["together", "in-turn", "leave-one-out"]] = []
    copies: Literal["auto", "count", "drop", "ignore"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    deterministic: bool = True
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    tracking: Annotated[list[Literal["mlflow", "tensorboard"]], BeforeValidator(_as_list)] = []

    @model_validator(mode="before")
    @classmethod
    def _own_recipes_are_changes(cls, content: Any) -> Any:
        """Move the recipe of each strategy that is not built in to `recipes`, below what is given there."""
        if not isinstance(content, Mapping) or "strategies" not in content:
            return content
        strategies, recipes = content["strategies"], content.get("recipes", {})
        if isinstance(strategies, (str, Mapping)) or not isinstance(strategies, Iterable):
            return content
        content = {**content, "strategies": (strategies := list(strategies))}
        if not isinstance(recipes, Mapping):
            return content
        found = dict(recipes)
        for strategy in strategies:
            name, own = _own_recipe(strategy)
            if own and isinstance(given := found.get(name, {}), Mapping):
                found[name] = changed(own, given)
        return {**content, "recipes": found} if found else content

    @field_validator("strategies")
    @classmethod
    def _with_baseline(cls, strategies: list[Strategy], info: ValidationInfo) -> list[Strategy]:
        names = [strategy.name for strategy in strategies]
        if len(set(names)) < len(names):
            raise ValueError("two strategies have the same name; rename one")
        if EVERY in names:
            raise ValueError(f"{EVERY} is a key of recipes and no name of a strategy; rename yours")
        strategies = [strategy for strategy in strategies if strategy not in (BASELINE, DEPLOYED)]
        for strategy in strategies:
            if strategy != STRATEGIES.get(strategy.name, strategy):
                raise ValueError(
                    f"{strategy.name} is the name of a built-in strategy; rename yours"
                )
        known = {**STRATEGIES, **{strategy.name: strategy for strategy in strategies}}
        network = info.data.get("model", NetworkConfig())
        baseline = DEPLOYED if network.is_deployed else BASELINE
        ordered: dict[str, Strategy] = {baseline.name: baseline}
        for strategy in strategies:
            for name in reversed(starts(strategy, known)):
                ordered.setdefault(name, known[name])
            ordered[strategy.name] = strategy
        return [
            one if one.name in STRATEGIES else replace(one, recipe=None) for one in ordered.values()
        ]

    @field_validator("recipes", mode="before")
    @classmethod
    def _recipes_by_name(cls, recipes: Any, info: ValidationInfo) -> Any:
        if not isinstance(recipes, Mapping):
            return recipes
        from_scratch = [s.name for s in info.data.get("strategies", ()) if s.start == "random"]
        found = dict(recipes)
        for name, recipe in recipes.items():
            if not isinstance(recipe, str):
                continue
            if recipe not in NAMED:
                raise CrossferError(
                    f"{name}: {recipe} is no recipe; use {' or '.join(NAMED)}, or a mapping"
                )
            if name not in from_scratch:
                raise CrossferError(
                    f"{name}: {recipe} is a recipe for training from random weights; use it "
                    f"for {' and '.join(from_scratch) or 'BL and FU'}"
                )
            found[name] = asdict(NAMED[recipe])
        return found

    @field_validator("fractions", "seeds")
    @classmethod
    def _no_repetition(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError("a value is listed twice; remove one")
        return sorted(values)

    @field_validator("protocols")
    @classmethod
    def _protocols_are_possible(cls, values: list[str], info: ValidationInfo) -> list[str]:
        if "leave-one-out" in values and info.data.get("model", NetworkConfig()).is_deployed:
            raise ValueError("leave-one-out trains from random weights; remove it or model.weights")
        return values

    @model_validator(mode="after")
    def _memory_belongs_to_a_model_and_is_read(self) -> Experiment:
        if self.memory and not self.model.is_deployed:
            raise CrossferError(
                "memory: only for a deployed model; name the model under model:, or remove "
                "memory:, since a trained baseline writes its own"
            )
        if self.memory and not any(one.memory for one in self.strategies):
            raise CrossferError(
                f"memory: none of {', '.join(one.name for one in self.strategies)} reads it; add GFR, "
                "for example, or remove memory:"
            )
        return self

    @model_validator(mode="after")
    def _folds_are_of_pairs(self) -> Experiment:
        if self.folds and self.protocols:
            raise CrossferError(
                f"folds: cannot be combined with protocols ({', '.join(self.protocols)}), which "
                "train one network for several targets; remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _protocols_need_several_targets(self) -> Experiment:
        alone = [name for name in self.protocols if name in ("together", "in-turn")]
        if alone and len(self.targets) < 2:
            raise CrossferError(f"protocols: {alone[0]} needs several targets; remove it")
        if "in-turn" in self.protocols and not any(one.goes_on for one in self.strategies):
            raise CrossferError(
                "protocols: in-turn goes on from a strategy's own last result, which none of "
                f"{', '.join(one.name for one in self.strategies)} can do; add FC, for example, or remove "
                "in-turn"
            )
        return self

    @model_validator(mode="after")
    def _selection_has_an_effect(self) -> Experiment:
        last = self.selection == "last"
        concerned = any(
            last or not (one.merge or one.data == "source")
            for one in self.strategies
            if one.layers != "none"
            and not one.unlabelled
            # A head in closed form has no epochs; its scale is chosen on the validation sets.
            or isinstance(one.memory, ClosedForm)
            and not last
        )
        if self.selection != "trained-on" and not concerned:
            raise CrossferError(
                f"selection: {self.selection} has no effect on "
                f"{', '.join(one.name for one in self.strategies)}; remove it"
            )
        return self

    @model_validator(mode="after")
    def _recipes_are_valid(self) -> Experiment:
        names = {strategy.name for strategy in self.strategies}
        for name in self.recipes:
            if name != EVERY and name not in names:
                raise CrossferError(
                    f"recipes.{name}: no such strategy in this experiment; use {EVERY}, "
                    f"{', '.join(sorted(names))}"
                )
        trained = [strategy for strategy in self.strategies if strategy.trains]
        every = self.recipes.get(EVERY, {})
        if every and not trained:
            raise CrossferError(
                f"recipes.{EVERY}: nothing is trained, so it has no effect; remove it"
            )
        if all(strategy.unlabelled for strategy in trained) and (vain := _of_labels(every)):
            raise CrossferError(
                f"recipes.{EVERY}.{min(vain)}: has no effect without labels; remove it"
            )
        for strategy in self.strategies:
            recipe = self.recipe(strategy)
            if strategy.trains:
                self._check_recipe(strategy, recipe)
            own = self.recipes.get(strategy.name, {})
            if own and not strategy.trains:
                raise CrossferError(
                    f"recipes.{strategy.name}: it trains nothing, so a recipe has no effect; remove it"
                )
            if strategy.unlabelled and (vain := _of_labels(own)):
                raise CrossferError(
                    f"recipes.{strategy.name}.{min(vain)}: has no effect without labels; remove it"
                )
        return self

    def _check_recipe(self, strategy: Strategy, recipe: Recipe) -> None:
        """Refuse what the training would refuse, hours later."""
        if recipe.batch_size < self.devices:
            raise CrossferError(
                f"devices: {self.devices}: more than the {recipe.batch_size} images of a batch of "
                f"{strategy.name}; use fewer, or set a larger batch_size in recipes"
            )
        sampled = isinstance(strategy.memory, FeatureReplay)
        if recipe.mixup and (strategy.penalty or sampled or self.devices > 1):
            what = f"the loss of {strategy.name}"
            if self.devices > 1:
                what = f"devices: {self.devices}"
            raise CrossferError(
                f"recipes: mixup cannot be combined with {what}; set it for other strategies only, or "
                f"{{{strategy.name}: {{mixup: 0}}}}"
            )
        if sampled and not recipe.views:
            raise CrossferError(
                f"recipes: {strategy.name} needs views of at least 1, whose features it computes once"
            )
        own = self.recipes.get(strategy.name, {})
        if sampled and "views" in own and recipe.epochs % recipe.views:
            raise CrossferError(
                f"recipes.{strategy.name}.views: {recipe.views} does not divide its {recipe.epochs} epochs; "
                "each view is to be shown equally often"
            )

    def folds_of(self, target: str) -> Folds | None:
        """Return the folds of a target; None: its own splits are used."""
        return self.folds.get(target) if isinstance(self.folds, dict) else self.folds

    def path(self, dataset: DatasetConfig) -> Path:
        """Return the path of a dataset."""
        return self.under_data(dataset.path)

    def under_data(self, path: Path) -> Path:
        """Return a path relative to the data root."""
        return (self.data or Path()).expanduser() / path.expanduser()

    @property
    def memory_file(self) -> Path | None:
        """The path of the given memory file."""
        return self.under_data(self.memory) if self.memory else None

    def recipe(self, strategy: Strategy) -> Recipe:
        """Return the recipe of a strategy: its default, with the user's changes for all, then for it."""
        merged: Mapping[str, Any] = asdict(strategy.default_recipe())
        for part in (EVERY, strategy.name):
            merged = changed(merged, self.recipes.get(part, {}))
            try:
                recipe = adapter(Recipe).validate_python(merged)
            except ValidationError as error:
                raise CrossferError(first_error(error, Recipe, f"recipes.{part}.")) from None
        return recipe


def _of_labels(changes: Mapping[str, Any]) -> set[str]:
    """Return the keys of changes to a recipe that change the loss of labels."""
    return {key for key in changes.keys() & OF_LABELS if changes[key] != getattr(Recipe(), key)}


def changed(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe, or changes to one, with changes; those of the augmentation leave its other keys."""
    key = "augmentation"
    if all(isinstance(part.get(key), Mapping) for part in (recipe, changes)):
        changes = {**changes, key: {**recipe[key], **changes[key]}}
    return {**recipe, **changes}


def _own_recipe(strategy: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the given recipe of a strategy, empty if it is built in or has none."""
    given = vars(strategy) if isinstance(strategy, Strategy) else strategy
    if not isinstance(given, Mapping) or not isinstance(name := given.get("name"), str):
        return "", {}
    recipe = given.get("recipe")
    if isinstance(recipe, Recipe):
        recipe = asdict(recipe)
    return name, dict(recipe) if isinstance(recipe, Mapping) and name not in STRATEGIES else {}


def load_experiment(file: str | Path, data: str | Path | None = None) -> Experiment:
    """Read an experiment from a YAML file.

    Parameters
    ----------
    file
        The configuration.
    data
        The data root, instead of the file's ``data``. Relative ``data`` and ``cache`` in the file are
        relative to the file's folder, which is also searched for a factory and its weights.

    Raises
    ------
    CrossferError
        If the file is missing or not YAML, or a key is unknown, missing or has an invalid value. The
        message names the key.
    """
    file = Path(file)
    if file.name == EXPERIMENT and (file.parent / LOCK).exists():
        raise CrossferError(
            f"{file}: a record that `crossfer run` wrote, with paths as they were there; give the YAML file "
            "of the experiment"
        )
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise CrossferError(f"{file}: must be a mapping with source, targets, …")
    content.setdefault("name", file.stem)
    for key in ("data", "cache", "memory"):
        if isinstance(content.get(key), str):
            content[key] = file.parent / Path(content[key]).expanduser()
    if isinstance(content.get("memory"), Path):  # beside this file, not below the data root
        content["memory"] = content["memory"].absolute()
    if data is not None:
        content["data"] = Path(data)
    model = content.get("model")
    if isinstance(model, str) and is_description(model):
        content["model"] = read_description(file.parent / Path(model).expanduser())
    elif isinstance(model := _as_network(model), dict):
        folder = Path(str(model.get("folder") or "")).expanduser()
        content["model"] = model | {"folder": file.parent / folder}
    return check_experiment(content, str(file))


def check_experiment(content: Mapping[str, Any], where: str = "experiment") -> Experiment:
    """Validate a mapping as an experiment; errors name the key."""
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise CrossferError(f"{where}: {first_error(error, Experiment)}") from None
