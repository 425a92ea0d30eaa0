"""The tables of a study file but `[search]`: one class each, one documented field per key."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from tlopt.spec import dimensions
from tlopt.spec.algorithms import Record
from tlopt.spec.dimensions import Choice, Dimension, Fixed

_LIMIT_SECONDS_MIN = 0.01  # below which no step of any network could end


class DataSpec(Record):
    """`[data]`: where the images come from and how they are split."""

    source: str = Field(
        min_length=1, description='a folder, "torchvision:NAME" (say, torchvision:Flowers102) or "digits"'
    )
    val_fraction: float = Field(
        default=0.2, gt=0, lt=0.9, description="share for validation, where the source has no val split"
    )
    test_fraction: float = Field(
        default=0.2,
        ge=0,
        lt=0.9,
        description="share locked away for the test, where the source has no test split",
    )
    repeats: int = Field(
        default=0,
        ge=0,
        le=20,
        description="train/val splits whose mean is a trial's value; 0: 3 under 500 images, otherwise 1",
    )
    images_max: int = Field(
        default=0,
        ge=0,
        description="use at most so many images, each class in proportion to its size; 0: all",
    )
    unreadable: Literal["error", "skip"] = Field(
        default="error", description="what to do with a file that cannot be decoded; skips are counted"
    )
    resize: Literal["crop", "squash"] = Field(
        default="crop",
        description="crop: shorter side to 8/7 of the resolution, then the middle; squash: both sides",
    )
    flip: bool = Field(default=True, description="mirror half of the training images left to right")
    views: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="views of a training image that the epochs of every trial take turns at; 0: new ones each"
        " epoch, and nothing frozen is kept from epoch to epoch",
    )

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Self:
        if self.val_fraction + self.test_fraction >= 0.95:
            raise ValueError("val_fraction and test_fraction leave less than 5 % of the images to train on")
        return self


class ModelSpec(Record):
    """`[model]`: the pretrained network."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    backbone: Fixed | Choice = Field(
        description='torchvision\'s name, "efficientnet_lite0" or "timm:NAME"; a choice is searched'
    )
    weights: str = Field(
        default="default",
        min_length=1,
        description='"default", one of the backbone\'s named weights, a .pth or .safetensors file ("#" and a'
        ' name take one entry of several, such as "a.pth#state_dict_ema"), or "none"',
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="of products; weights stay float32. auto: the faster, measured once for all workers",
    )
    layout: Literal["usual", "channels_first", "channels_last", "auto"] = Field(
        default="usual",
        description="of images in memory. usual: channels_last on GPUs and with grouped convolutions",
    )
    compile: bool = Field(
        default=False,
        description="training steps by torch.compile: each trial begins with seconds to minutes of compiling",
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


class BudgetSpec(Record):
    """`[budget]`: when the search ends."""

    trials: int = Field(
        ge=1, le=1_000_000, description="number of trials to finish, complete or pruned, over all workers"
    )
    epochs: int = Field(ge=1, le=100_000, description="largest number of epochs of a trial")
    hours: float = Field(
        default=0.0, ge=0, description="no trial starts later than this after the study began; 0: no limit"
    )


class ConfirmSpec(Record):
    """`[confirm]`: how the best points are judged again."""

    points: int = Field(default=3, ge=1, le=50, description="best points that are run again")
    seeds: int = Field(default=3, ge=3, le=50, description="times each is run, with different seeds")


class ServiceSpec(Record):
    """`[service]`: limits of trials, and what is done about workers and databases that go away."""

    trial_seconds_max: float = Field(
        default=0.0, ge=0, description="seconds of work after which a trial ends as timed out; 0: no limit"
    )
    stall_seconds_max: float = Field(
        default=900.0,
        ge=0,
        description="seconds without a step until a trial is handed on and its worker replaced; 0: never",
    )
    grace_seconds: float = Field(
        default=60.0, ge=1, description="seconds without a beat after which another worker takes a trial over"
    )
    crashes_max: int = Field(
        default=3,
        ge=1,
        description="times in a row a trial may be lost without progress before it ends as crashed",
    )
    failures_max: int = Field(
        default=3, ge=1, description="trials in a row that may crash or fail before the workers stop"
    )
    outage_seconds_max: float = Field(
        default=600.0, ge=1, description="seconds a database that is away is waited for"
    )
    checkpoint_seconds: float = Field(
        default=300.0,
        ge=0,
        description="seconds between checkpoints within an epoch, beside those at its end; 0: only there",
    )
    checkpoint_gb_max: float = Field(
        default=50.0, ge=0.001, description="gigabytes that all checkpoints of the study may take"
    )

    @field_validator("trial_seconds_max", "stall_seconds_max")
    @classmethod
    def _is_long_enough(cls, seconds: float) -> float:
        if 0 < seconds < _LIMIT_SECONDS_MIN:
            raise ValueError(
                f"{seconds:g} is not allowed: 0 for no limit, or {_LIMIT_SECONDS_MIN:g} and more"
            )
        return seconds
