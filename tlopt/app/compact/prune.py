"""Pruning an export: open it with its study's images, prune, and write what is left as another export."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tlopt import spec
from tlopt.app.handle import errors_of
from tlopt.errors import DataError, Diverged, NotReady, SpecError
from tlopt.exports.result import read_exported_verdict, read_result
from tlopt.spec.objectives import percent_words
from tlopt.spec.trial_spec import Criterion, PruneGoal, Quantity, Scope

if TYPE_CHECKING:
    from tlopt.app.compact.pruning_state import PruningState
    from tlopt.compact.prune import Pruning, PruningRound, Recipe
    from tlopt.exports.read import Export
    from tlopt.training.loop import Epoch
    from tlopt.trial.workspace import Workspace

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PruneRequest:
    """What to prune, where the result goes and how it is trained."""

    folder: Path  # of the export
    to: Path | None = None  # default: FOLDER-compact
    epochs: int | None = None  # of each round; default: the recipe's
    device: str = "auto"
    overwrite: bool = False
    onnx: bool = False

    @property
    def target(self) -> Path:
        """The folder of the result."""
        if self.to is not None:
            return self.to
        folder = self.folder.absolute()
        return folder.with_name(f"{folder.name}-compact")


def goal_of(
    *,
    parameters: float | None,
    multiply_adds: float | None,
    criterion: Criterion,
    scope: Scope,
    n_rounds: int,
    loss_max: float,
    named: Callable[[str], str],
) -> PruneGoal:
    """The goal with these values; `loss_max` is in points.

    Args:
        named: how messages name an argument.

    Raises:
        SpecError: none or both of the shares are given, or a number is out of its range.
    """
    quantity: Quantity = "multiply_adds" if parameters is None else "parameters"
    share = multiply_adds if parameters is None else parameters
    if share is None or None not in (parameters, multiply_adds):
        both = f"{named('parameters')} or {named('multiply_adds')}"
        raise SpecError(f"give either {both}, the share to keep, such as 0.33")
    if not 0 < share < 1:
        raise SpecError(f"{named(quantity)} {share:g}: expected a share between 0 and 1, such as 0.33")
    for name, value, allowed in (("criterion", criterion, Criterion), ("scope", scope, Scope)):
        if value not in get_args(allowed):
            raise SpecError(f"{named(name)} {value!r}: expected one of {', '.join(get_args(allowed))}")
    if n_rounds < 1:
        raise SpecError(f"{named('n_rounds')} {n_rounds}: expected at least 1")
    if not 0 <= loss_max <= 100:
        raise SpecError(f"{named('loss_max')} {loss_max:g}: expected 0 to 100 points")
    return PruneGoal(
        quantity=quantity,
        share=share,
        criterion=criterion,
        scope=scope,
        n_rounds=n_rounds,
        loss_max=loss_max / 100,
    )


def prune(request: PruneRequest, goal: PruneGoal) -> "Iterator[Epoch | PruningRound]":
    """Prune an export and write the result; yields each epoch and round.

    The state is saved after each epoch. If a call with the same arguments was stopped, this one goes on where
    that one was, yields its rounds first, and ends with bitwise the same network.

    Raises:
        NotReady: `folder` is no export, or even the first round lost more accuracy than allowed.
        SpecError: the network cannot be pruned so.
        DataError: the images are not those of the export, or something is at the target, or another process
            is pruning to it.
    """
    from tlopt.app.compact.pruning_state import interrupted_result, sole_pruning
    from tlopt.exports.read import read_export
    from tlopt.exports.write import check_target

    export = read_export(request.folder)
    with sole_pruning(request.target):
        written_by = interrupted_result(request.target)
        check_target(request.target, overwrite=request.overwrite or bool(written_by))
        yield from _pruned(export, request, goal, written_by)


def _pruned(
    export: "Export", request: PruneRequest, goal: PruneGoal, written_by: str
) -> "Iterator[Epoch | PruningRound]":
    """Prune from the saved state, if there is one, and write the result.

    Args:
        written_by: identity of an interrupted pruning that wrote what is at the target, or "".
    """
    from tlopt.app.compact.pruning_state import PruningState, pruning_identity
    from tlopt.compact.prune import begin_pruning
    from tlopt.exports.read import load_network
    from tlopt.exports.write import check_target

    recipe, made_by = _recipe(export, request)
    begun = begin_pruning(load_network(export, recipe.device), recipe, goal)
    state = PruningState(request.target, pruning_identity(export, begun, made_by))
    overwrite = request.overwrite or written_by == state.identity
    check_target(request.target, overwrite=overwrite)
    pruning = state.resumed(begun)
    try:
        yield from _to_the_end(pruning, state)
        if pruning.kept.index == 0:
            raise NotReady(_too_much_lost(pruning.rounds, goal))
        _export(export, pruning, request, identity=state.identity, overwrite=overwrite)
    except (SpecError, NotReady, Diverged):  # a second attempt would end alike
        state.remove()
        raise
    state.remove()


def _to_the_end(pruning: "Pruning", state: "PruningState") -> "Iterator[Epoch | PruningRound]":
    """Rounds that have ended, then each epoch and round as it ends."""
    from tlopt.compact.prune import pruning_events
    from tlopt.training.loop import Step

    yield from tuple(pruning.rounds)
    for event in pruning_events(pruning):
        if not isinstance(event, Step):
            state.save(pruning)
            yield event
    if pruning.diverged:
        _logger.warning("%s; the network of round %d is exported", pruning.diverged, pruning.kept.index)


def _export(
    export: "Export", pruning: "Pruning", request: PruneRequest, *, identity: str, overwrite: bool
) -> None:
    from tlopt.exports.compact import Pruned, write_compact
    from tlopt.exports.onnx import write_onnx
    from tlopt.exports.read import read_export

    pruned = Pruned.of(pruning, identity=identity)
    folder = write_compact(request.target, export, pruned, overwrite=overwrite)
    if request.onnx:
        write_onnx(read_export(folder), folder)


def _too_much_lost(rounds: "list[PruningRound]", goal: PruneGoal) -> str:
    before, after = (percent_words(each.val.accuracy) for each in (rounds[0], rounds[-1]))
    return (
        f"nothing was written: the first round lost more than {100 * goal.loss_max:.1f} points of validation"
        f" accuracy ({before} before, {after} after); allow more with --loss-max, remove less, or give it"
        " more --rounds or --epochs"
    )


def _recipe(export: "Export", request: PruneRequest) -> "tuple[Recipe, str]":
    """The training of `export`, with its images, and a digest of point, seed, images and weights.

    Raises:
        SpecError: the network has no recipe to be trained on by, or no validation images of its own.
        DataError: the images are not those of the export.
    """
    from tlopt.compact.prune import Recipe
    from tlopt.exports.read import load_network
    from tlopt.spec.trial_spec import recipe_point
    from tlopt.training.devices import choose_device
    from tlopt.trial.autotune import numerics_of_study
    from tlopt.trial.workspace import Workspace

    result = read_result(export.folder)
    _check_prunable(export, result)
    study = spec.load(export.folder / "config.toml")
    with errors_of(str(export.folder)):
        workspace = Workspace.open(study, choose_device(request.device), progress=True)
    if workspace.data.fingerprint != result["data"].get("fingerprint"):
        raise DataError(f"{study.data.source}: the images are not those that {export.folder} was trained on")
    split = workspace.data.splits[workspace.data.confirm_split(_replicate(export, result))]
    point = recipe_point(export.point, epochs=request.epochs)
    seed = int(result["network"]["seed"])
    recipe = Recipe(
        point=point,
        images=workspace.images(point),
        train=split.train,
        val=split.val,
        pretrained=_pretrained(workspace, export),
        n_classes=workspace.n_classes,
        seed=seed,
        device=workspace.device,
        numerics=numerics_of_study(study, load_network(export, workspace.device), workspace.device),
    )
    return recipe, workspace.identity(point, (seed,))


def _check_prunable(export: "Export", result: dict[str, Any]) -> None:
    if export.is_compact:
        raise SpecError(f"{export.folder} is pruned already: prune the export that it was made from")
    if export.members:
        raise SpecError(
            f"{export.folder} is an ensemble, and tlopt prune takes one network: prune the export of a soup"
            " or of the chosen network"
        )
    if export.point.is_linear:
        raise SpecError(
            f"{export.folder}: its classifier was fitted on features of the frozen {export.backbone}, so"
            " there is no recipe to train the network by; search trained networks only, in a study of another"
            ' name with classifier = "network", and prune its export'
        )


def _replicate(export: "Export", result: dict[str, Any]) -> int:
    """The number of the network's run in its confirmation, from 0.

    Raises:
        SpecError: it was trained on the validation images, too.
    """
    seeds = read_exported_verdict(export.folder).chosen.seeds
    seed = result.get("network", {}).get("seed")
    if seed not in seeds:
        raise SpecError(
            f"{export.folder} was trained on the validation images, too, so that a loss of accuracy cannot be"
            " measured; prune the export of tlopt run or tlopt export"
        )
    return seeds.index(seed)


def _pretrained(workspace: "Workspace", export: "Export") -> dict[str, Any]:
    """w⁰ of the export's backbone."""
    weights = workspace.weights[export.backbone]
    if weights.digest != export.weights_digest:
        _logger.warning("the pretrained weights are not those of the export; L2-SP pulls towards others")
    return dict(weights.state)
