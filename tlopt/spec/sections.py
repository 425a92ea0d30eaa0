"""The keys of `[data]`: where the images come from, how they are divided and seen."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tlopt.algorithms import Record


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
