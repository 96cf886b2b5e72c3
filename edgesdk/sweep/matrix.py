"""Every combination of a sweep, looked up and checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import estimate
from ..compress.allocation import chosen_size
from ..compress.recipe import Recipe, choose_recipe, open_recipe
from ..converter import CONVERTERS, MemoryPlan, ProgramOptions
from ..devices.address import Settings, find
from ..devices.serial import identity_of
from ..errors import EdgeError, TargetError
from ..linting import refuse_tokenizer
from ..model import catalogue
from ..model.opening import open_model
from ..options import program_options
from ..progress import Progress
from ..schema import dump
from ..targets import Target, open_target
from .jobs import ExportJob, Identities, digest
from .plan import SweepFile, located

if TYPE_CHECKING:
    from ..model import Model


@dataclass(frozen=True)
class Place:
    """A device of the sweep.

    Attributes:
        name: as the sweep names it.
        settings: what ``devices.toml`` says about it.
        meters: URLs of meters beside it.
    """

    name: str
    settings: Settings
    meters: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The same for every way to name the device; known without a connection."""
        address = self.settings.address
        return identity_of(address) if address.startswith("serial:") else address


@dataclass(frozen=True)
class Cell:
    """One model with one recipe for one target.

    Attributes:
        model: as the sweep names it.
        recipe: likewise.
        target: likewise.
        job: the export; None where it is refused.
        places: where the bundle is profiled.
        estimate: bytes of the program, known before any work; None where only the passes decide them.
        refused: why the target does not hold it.
    """

    model: str
    recipe: str
    target: str
    job: ExportJob | None
    places: tuple[Place, ...] = ()
    estimate: int | None = None
    refused: str | None = None


def resolve(file: SweepFile, folder: Path, fleet: Path | None, progress: Progress) -> list[Cell]:
    """Look up every name, and ask every target what it holds.

    Models of the catalogue and of the hub are fetched where they are not here yet, after all other names were found.

    Raises:
        EdgeError: a name that is not known, or a plan that no context has room for.
        MissingExtraError: a target's converter is not installed.
    """
    targets = {name: open_target(name) for name in file.targets}
    for target in targets.values():
        CONVERTERS.get(target.converter)
    recipes = {
        (recipe, name): open_recipe(located(recipe, folder), target.recipes)
        for recipe in file.recipes
        for name, target in targets.items()
    }
    places = [(each.targets, Place(each.device, find(each.device, fleet), each.meters)) for each in file.devices]
    _refuse_one_device_twice([place for _, place in places])
    models = _models(file, folder, progress)
    identities, cells = Identities(), []
    for name, (opened_by, model) in models.items():
        for (recipe, aim), wanted in recipes.items():
            if any(each.covers(name, recipe, aim, None) for each in file.exclude):
                continue
            found = tuple(
                place
                for served, place in places
                if aim in served and not any(each.covers(name, recipe, aim, place.name) for each in file.exclude)
            )
            cells.append(_Planning(file, name, opened_by, model, identities).cell(recipe, wanted, targets[aim], found))
    if not cells:
        raise EdgeError("the sweep excludes everything that it lists")
    return cells


def _refuse_one_device_twice(places: list[Place]) -> None:
    names: dict[str, str] = {}
    for place in places:
        other = names.setdefault(place.identity, place.name)
        if other != place.name:
            raise EdgeError(f"'{other}' and '{place.name}' are one device", hint="name it once, with all its targets")


def _models(file: SweepFile, folder: Path, progress: Progress) -> dict[str, tuple[str, Model]]:
    """Opened models by their names in the sweep; those that are nowhere are refused before any is fetched."""
    entries, found = catalogue.load(), {}
    names = {name: located(name, folder) for name in file.models}
    for where in names.values():
        if not (Path(where).exists() or where in entries or catalogue.is_hub_id(where)):
            open_model(where)  # says what there is
    for name, where in names.items():
        found[name] = (where, open_model(where, progress))
    return found


@dataclass(frozen=True)
class _Planning:
    file: SweepFile
    name: str
    opened_by: str
    model: Model
    identities: Identities

    def cell(self, recipe: str, wanted: Recipe, target: Target, places: tuple[Place, ...]) -> Cell:
        chosen = choose_recipe(self.model, wanted)
        try:
            options = program_options(self.model, target, chosen, self.file.context)
            size = _planned(self.model, chosen, target, options)
        except EdgeError as failure:
            said = failure.message + (f" ({failure.hint})" if failure.hint else "")
            return Cell(self.name, recipe, target.name, None, places, None, said)
        if places:
            self._refuse_plan(options.context)
        file = self.file
        key = self.identities.key(
            self.opened_by, self.model, chosen, target, dump(options), file.calibration, file.checks
        )
        job = ExportJob(
            key, self.opened_by, wanted, target.name, digest(target), options.context, file.calibration, file.checks
        )
        return Cell(self.name, recipe, target.name, job, places, size)

    def _refuse_plan(self, context: int) -> None:
        plan = self.file.profile
        needed = max(plan.prompt_tokens, default=0) + plan.new_tokens + 1
        if needed > context:
            raise EdgeError(
                f"[profile] asks for {needed - 1} tokens, which need a context of {needed}; {self.name} gets {context}",
                hint="ask for fewer, or raise 'context'",
            )


def _planned(model: Model, recipe: Recipe, target: Target, options: ProgramOptions) -> int | None:
    """Bytes of the program where they are known before any work.

    Raises:
        EdgeError: the target does not hold it.
    """
    converter = CONVERTERS.get(target.converter)
    if model.tokenizer is not None:
        refuse_tokenizer(model.tokenizer, target)
    most = chosen_size(recipe, None, model.spec.parameters)
    if recipe.reshapes:
        return None
    spec = recipe.spec(model.spec)
    converter.check(spec, recipe, options, target)
    if most is not None:
        return most
    plan = converter.plan(spec, recipe, options)
    _refuse_unfit(model, plan, options, target)
    return plan.program


def _refuse_unfit(model: Model, plan: MemoryPlan, options: ProgramOptions, target: Target) -> None:
    """As an export does; but that this host is short of memory now is a failure of the job, not the target's no."""
    try:
        estimate.refuse_unfit(model.spec, plan, options, target, None)
    except TargetError as failure:
        if failure.message.startswith(f"{target.name}:"):
            raise
