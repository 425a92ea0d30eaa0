"""Study files with a single point and no searched keys."""

from collections.abc import Mapping

from tlopt.errors import SpecError
from tlopt.model.facts import BackboneFacts
from tlopt.spec import Study
from tlopt.spec.dimensions import Fixed, Scalar
from tlopt.spec.point import Point
from tlopt.spec.search_keys import LINEAR_KEYS, RULES, STRUCTURE_KEYS
from tlopt.spec.study import NAME_LENGTH_MAX
from tlopt.spec.text import literal, user_path

_IN_AN_EXPORT = (
    "# Train it on training and validation images together, in this folder, with:",
    "#   tlopt train config.toml ../trained",
)
_BY_ITSELF = (
    "# tlopt train trains it on training and validation images together. Relative paths count from the",
    "# folder in which the command runs, as in the study's own file.",
)


def name_of_point(study: Study, label: str) -> str:
    """A name for the study of the single point `label`, such as "flowers-trial-12"."""
    return f"{study.name[:80]}-{label.replace('/', '-').replace(' ', '-')}"[:NAME_LENGTH_MAX]


def fixed_study(study: Study, point: Point, *, name: str, exported: bool = False) -> str:
    """The text of a study file whose only point is `point`.

    Images, weights, seed, objective and confirmation are those of `study`; numbers round-trip exactly.

    Args:
        name: name of the new study.
        exported: whether the text is for the config.toml of an export. Paths of existing files are then made
            absolute, because exports are used from other folders.
    """
    data, model = study.data.model_dump(), study.model.model_dump()
    if exported:
        data |= {key: _whole(data[key]) for key in ("source", "images_root") if data[key]}
        model["weights"] = _whole(study.model.weights)
    tables: list[tuple[str, Mapping[str, Scalar]]] = [
        ("data", data),
        ("model", model | {"backbone": point.backbone}),
        ("budget", {"trials": 1, "epochs": point.epochs}),
        ("search", _search(point)),
        ("confirm", study.confirm.model_dump()),
    ]
    lines = [
        f"# One point of the study {study.name} ({study.digest}), with every key at a plain value.",
        *(_IN_AN_EXPORT if exported else _BY_ITSELF),
        *_lines({"name": name, "seed": study.seed, "objective": study.objective}),
    ]
    for title, table in tables:
        lines += ["", f"[{title}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _search(point: Point) -> dict[str, Scalar]:
    """The keys that affect the point; those of structure only where they do not have their defaults."""
    values = {key: getattr(point, key) for key in (LINEAR_KEYS if point.is_linear else RULES)}
    stored = point.as_dict()
    return {key: value for key, value in values.items() if key in stored or key not in STRUCTURE_KEYS}


def _whole(value: str) -> str:
    """`value`, made an absolute path if it names an existing file or folder."""
    path, mark, part = value.partition("#")
    try:
        return f"{user_path(path).absolute()}{mark}{part}" if user_path(path).exists() else value
    except (OSError, SpecError):
        return value


def only_point(study: Study, facts: BackboneFacts) -> Point:
    """The only point of a study without searched keys; missing keys have their defaults.

    Raises:
        SpecError: keys are searched; the message names them.
    """
    # imported here, because exports are written and read without Optuna, which the search space needs
    from tlopt.search.space import resolve, without_idle_keys

    study = without_idle_keys(study, facts)
    dimensions = {"model.backbone": study.model.backbone} | {
        f"search.{key}": dimension for key, dimension in study.search.items()
    }
    searched = [key for key, dimension in dimensions.items() if not isinstance(dimension, Fixed)]
    if searched:
        raise SpecError(
            f"study {study.name}: {', '.join(searched)} {'is' if len(searched) == 1 else 'are'} searched; one"
            " point needs a plain value for each (an export's config.toml has them)"
        )
    values = {key: dimension.value for key, dimension in study.search.items() if isinstance(dimension, Fixed)}
    return resolve(values, study.model.backbones[0], study.budget.epochs, facts)


def _lines(table: Mapping[str, Scalar]) -> list[str]:
    return [f"{key} = {literal(value)}" for key, value in table.items()]
