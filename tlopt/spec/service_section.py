"""`[service]` of the study file: how its workers behave. It changes no trial and is no part of the digest."""

from pydantic import Field

from tlopt.algorithms import Record


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
        default=50.0, gt=0, description="gigabytes that all checkpoints of the study may take"
    )
