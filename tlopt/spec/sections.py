"""The tables of a study file except `[search]`: one class per table, one documented field per key."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from tlopt.spec import dimensions
from tlopt.spec.algorithms import Record
from tlopt.spec.dimensions import Choice, Dimension, Fixed
from tlopt.system.words import counted

# These bounds lie far above sensible values; they reject typing errors and numbers that overflow.
_IMAGES_MAX = 1_000_000_000
_HOURS_MAX = 1_000_000  # a century
_SECONDS_MAX = 1_000_000_000
_TIMES_MAX = 1_000_000


def or_zero(least: float, *, zero: str) -> AfterValidator:
    """A validator that refuses numbers between 0, which means `zero`, and `least`."""

    def checked(value: float) -> float:
        if 0 < value < least:
            raise ValueError(f"{value:g} is not allowed: 0 for {zero}, or {least:g} and more")
        return value

    return AfterValidator(checked)


TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


class DataSpec(Record):
    """`[data]`: where the images come from and how they are split."""

    source: str = Field(
        min_length=1,
        description="a folder of images, a table of files and labels (.csv, .tsv, .jsonl, .parquet),"
        ' "torchvision:NAME" (such as torchvision:Flowers102) or "digits"',
    )
    val_fraction: float = Field(
        default=0.2,
        ge=1e-6,
        lt=0.9,
        description="share of the images used for validation, if the source has no validation split",
    )
    test_fraction: Annotated[float, or_zero(1e-6, zero="no test")] = Field(
        default=0.2,
        ge=0,
        lt=0.9,
        description="share of the images held out for the test, if the source has no test split",
    )
    repeats: int = Field(
        default=0,
        ge=0,
        le=20,
        description="number of training/validation splits; a trial's value is the mean over them; 0: 3"
        " splits below 500 images, otherwise 1",
    )
    confirm_splits: int = Field(
        default=0,
        ge=0,
        le=20,
        description="number of further training/validation splits, which no trial of the search sees and the"
        " seeds of the confirmation take in turn; 0: those of the trials",
    )
    folds: int = Field(
        default=0,
        ge=0,
        le=20,
        description="number of folds for cross-validation, in which each image is used for validation"
        " once; 0: use repeats and val_fraction instead",
    )
    images_max: int = Field(
        default=0,
        ge=0,
        le=_IMAGES_MAX,
        description="largest number of images to use, from each class in proportion to its size; 0: all",
    )
    unreadable: Literal["error", "skip"] = Field(
        default="error",
        description="what to do with a file that cannot be decoded; skipped files are counted",
    )
    conflicts: Literal["error", "skip"] = Field(
        default="error",
        description="what to do with an image that occurs in two classes; skip leaves out all of its copies",
    )
    copies: Literal["pixels", "files"] = Field(
        default="pixels",
        description="which files are copies of one image, and therefore stay on one side of every split:"
        " those with equal decoded pixels, or only those with equal bytes",
    )
    file_column: str = Field(default="", description="column of a table that names the image file")
    label_column: str = Field(default="", description="column of a table that names the class")
    split_column: str = Field(
        default="",
        description="column of a table that contains train, val or test; without one, tlopt splits the"
        " images",
    )
    fold_column: str = Field(
        default="",
        description="column of a table that names the fold in which an image is used for validation, for"
        " cross-validation with given folds",
    )
    images_root: str = Field(
        default="",
        description="folder to which the file names in a table are relative; default: the table's own folder",
    )
    group_column: str = Field(
        default="",
        description="column of a table that names the group of an image, such as a patient or a scene; a"
        " group stays on one side of every split",
    )
    group_folder: int = Field(
        default=0,
        ge=0,
        le=20,
        description="folder whose name is the group of an image: 1 for the folder that contains the file,"
        " 2 for the one above; a group stays on one side of every split; 0: no groups",
    )
    group_pattern: str = Field(
        default="",
        description="regular expression that finds the group of an image in the file's path below the"
        " source: its (captures), or the whole match if it has none; a group stays on one side"
        " of every split",
    )
    resize: Literal["crop", "stretch"] = Field(
        default="crop",
        description="crop: resize the shorter side to 8/7 of the resolution, then cut out the central"
        " square; stretch: resize both sides to the resolution",
    )
    bits: int = Field(
        default=0,
        ge=0,
        le=16,
        description="number of bits that values of 16-bit images use, 8 to 16, for cameras that leave the"
        " upper bits empty; larger values become white; 0: all 16",
    )
    megapixels_max: Annotated[float, or_zero(0.001, zero="Pillow's limit")] = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="largest number of pixels of an image, in millions; decoding takes 3 to 8 bytes of"
        " memory per pixel; 0: Pillow's limit, 179",
    )
    flip: bool = Field(default=True, description="mirror half of the training images left to right")
    views: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="number of fixed views per training image, which the epochs of every trial use in"
        " turn; 0: new views in each epoch, so that outputs of frozen blocks cannot be reused"
        " in training",
    )

    @field_validator("resize", mode="before")
    @classmethod
    def _read_former_name(cls, raw: object) -> object:
        return "stretch" if raw == "squash" else raw

    @field_validator("bits")
    @classmethod
    def _is_a_depth(cls, bits: int) -> int:
        if 0 < bits < 8:
            raise ValueError(f"{bits} is not allowed: 0, or 8 to 16")
        return bits

    @model_validator(mode="after")
    def _divides_in_one_way(self) -> Self:
        given = [key for key in ("repeats", "folds", "fold_column") if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} both say how to divide: keep one of them")
        if self.folds == 1:
            raise ValueError("folds: 1 is not allowed: 0, or 2 to 20")
        return self

    @field_validator("group_pattern")
    @classmethod
    def _is_an_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _names_columns_of_tables_only(self) -> Self:
        keys = (
            *("file_column", "label_column", "split_column", "group_column", "fold_column", "images_root"),
        )
        given = [key for key in keys if getattr(self, key)]
        if given and not self.is_table:
            raise ValueError(f"{given[0]} needs a table as the source ({', '.join(TABLE_SUFFIXES)})")
        groups = [key for key in ("group_column", "group_folder", "group_pattern") if getattr(self, key)]
        if len(groups) > 1:
            raise ValueError(f"{' and '.join(groups)} both say what a group is: keep one of them")
        return self

    @property
    def is_table(self) -> bool:
        """Whether the source is a table of files and labels."""
        return self.source.lower().endswith(TABLE_SUFFIXES)

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Self:
        if self.val_fraction + self.test_fraction >= 0.95:
            raise ValueError("val_fraction and test_fraction leave less than 5 % of the images to train on")
        return self


class ModelSpec(Record):
    """`[model]`: the pretrained network."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    backbone: Fixed | Choice = Field(
        description='a name from torchvision, "efficientnet_lite0" or "timm:NAME", also with a factor of its'
        ' channels, as in "timm:resnet18d@0.5"; a choice is searched'
    )
    weights: str = Field(
        default="default",
        min_length=1,
        description='"default", a name of the backbone\'s weights, a .pth or .safetensors file'
        ' ("a.pth#state_dict_ema" selects one of several entries), or "none"',
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="precision of matrix products and convolutions; weights stay float32. auto: the faster"
        " one, measured once for all workers",
    )
    layout: Literal["usual", "channels_first", "channels_last", "auto"] = Field(
        default="usual",
        description="memory layout of images. usual: channels_last on GPUs and for networks with grouped"
        " convolutions. auto: the faster one, measured once for all workers",
    )
    compile: bool = Field(
        default=False,
        description="compile training steps with torch.compile, which takes seconds to minutes at the"
        " start of each trial",
    )

    @field_validator("backbone", mode="before")
    @classmethod
    def _parse_backbone(cls, raw: object) -> Dimension:
        dimension = dimensions.parse(raw)
        if not all(isinstance(name, str) and name for name in dimensions.bounds(dimension)):
            raise ValueError('a backbone is a name such as "resnet50", or { choice = ["a", "b"] }')
        return dimension

    @property
    def backbones(self) -> tuple[str, ...]:
        """Every backbone the study may build."""
        return tuple(str(name) for name in dimensions.bounds(self.backbone))


# `trials = "enough"`: "Enough trials" in benchmarks/selection/README.md
ENOUGH_MIN = 24  # trials before which a search does not end
ENOUGH_MAX = 60  # trials at which it ends in any case: the most that `init` proposes
ENOUGH_AFTER = 16  # trials in a row without a better one that end it
_TRIALS_MAX = 1_000_000


class BudgetSpec(Record):
    """`[budget]`: the limits of the search."""

    trials: Annotated[int, Field(ge=1, le=_TRIALS_MAX)] | Literal["enough"] = Field(
        description='number of trials to finish, complete or pruned, over all workers; "enough":'
        f" {ENOUGH_MIN} to {ENOUGH_MAX}, until {ENOUGH_AFTER} in a row find nothing better",
    )
    epochs: int = Field(ge=1, le=100_000, description="largest number of epochs per trial")
    hours: Annotated[float, or_zero(0.001, zero="no limit")] = Field(
        default=0.0,
        ge=0,
        le=_HOURS_MAX,
        description="no trial starts later than this many hours after the start of the study; 0: no limit",
    )

    @property
    def trials_max(self) -> int:
        """The largest number of trials to finish."""
        return ENOUGH_MAX if self.trials == "enough" else self.trials

    @property
    def trials_words(self) -> str:
        """As in "40 trials" and "24 to 60 trials"."""
        least = f"{ENOUGH_MIN} to " if self.trials == "enough" else ""
        return least + counted(self.trials_max, "trial", form=",")

    @field_validator("trials", mode="before")
    @classmethod
    def _check_trials(cls, raw: object) -> object:
        """Say what is wrong once, and not for each form."""
        if raw == "enough":
            return raw
        refused = f"{dimensions.as_toml(raw)} is not allowed"
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise ValueError(f'{refused}: a whole number, or "enough"')
        if not 1 <= raw <= _TRIALS_MAX:
            raise ValueError(f"{refused}: at least 1" if raw < 1 else f"{refused}: at most {_TRIALS_MAX}")
        return raw


_COST_MAX = 1e18


class ConstraintsSpec(Record):
    """`[constraints]`: the most that a network may cost in use; others are not trained."""

    parameters: Annotated[float, or_zero(1, zero="no limit")] = Field(
        default=0.0,
        ge=0,
        le=_COST_MAX,
        description="most parameters of a network, head included; 0: no limit",
    )
    multiply_adds: Annotated[float, or_zero(1, zero="no limit")] = Field(
        default=0.0,
        ge=0,
        le=_COST_MAX,
        description="most multiply-adds of a network for one image, as `tlopt cost` counts them; 0: no limit",
    )
    bytes: Annotated[float, or_zero(1, zero="no limit")] = Field(
        default=0.0,
        ge=0,
        le=_COST_MAX,
        description="most bytes of the file of weights of a network; 0: no limit",
    )
    latency_ms: Annotated[float, or_zero(1e-6, zero="no limit")] = Field(
        default=0.0,
        ge=0,
        le=_COST_MAX,
        description="most milliseconds for one image on the worker's device, as measured before the trial;"
        " 0: no limit",
    )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: limit for name, limit in self if limit > 0}


class ConfirmSpec(Record):
    """`[confirm]`: how the best points are evaluated again."""

    points: int = Field(
        default=3,
        ge=1,
        le=50,
        description="number of best points to train again; half of those that remain are dropped after 1,"
        " 3, 7, ... seeds",
    )
    seeds: int = Field(
        default=3,
        ge=3,
        le=50,
        description="number of seeds for the points that remain to the end, and for the defaults",
    )


Logger = Literal["tensorboard", "mlflow", "wandb"]


class ServiceSpec(Record):
    """`[service]`: limits of trials, and the handling of lost workers and databases."""

    # no step of any network ends in less than 0.01 s
    trial_seconds_max: Annotated[float, or_zero(0.01, zero="no limit")] = Field(
        default=0.0,
        ge=0,
        le=_SECONDS_MAX,
        description="seconds of training after which a trial ends as timed out; 0: no limit",
    )
    stall_seconds_max: Annotated[float, or_zero(0.01, zero="no limit")] = Field(
        default=900.0,
        ge=0,
        le=_SECONDS_MAX,
        description="seconds without a step after which a trial is requeued and its worker replaced; 0:"
        " never",
    )
    grace_seconds: float = Field(
        default=60.0,
        ge=1,
        le=_SECONDS_MAX,
        description="seconds without a heartbeat after which another worker takes over a trial",
    )
    crashes_max: int = Field(
        default=3,
        ge=1,
        le=_TIMES_MAX,
        description="number of times in a row that a trial may lose its worker without progress before it"
        " ends as crashed",
    )
    failures_max: int = Field(
        default=3,
        ge=1,
        le=_TIMES_MAX,
        description="number of trials in a row that may crash or fail before the workers stop",
    )
    outage_seconds_max: float = Field(
        default=600.0,
        ge=1,
        le=_SECONDS_MAX,
        description="seconds to wait for a database that cannot be reached before giving up",
    )
    checkpoint_seconds: Annotated[float, or_zero(0.001, zero="the ends of epochs alone")] = Field(
        default=300.0,
        ge=0,
        le=_SECONDS_MAX,
        description="seconds between checkpoints within an epoch; 0: only at the end of each epoch",
    )
    checkpoint_gb_max: float = Field(
        default=50.0,
        ge=0.001,
        le=1_000_000,
        description="largest total size of the study's checkpoints, in gigabytes",
    )
    loggers: tuple[Logger, ...] = Field(
        default=(),
        strict=False,  # TOML has arrays
        description="other programs that receive the point, epochs and outcome of each trial: any of"
        " tensorboard, mlflow, wandb",
    )
