"""A worker takes over a lease only after it has seen it unchanged for the whole grace period."""

from hypothesis import given
from hypothesis import strategies as st

from tlopt.storage.leases import ObservedLease
from tlopt.worker.heartbeat import LeaseWatch

GRACE = 60.0
GAP = GRACE / 2
LOOK = 5.0


def seen(beat: int, token: str = "a") -> ObservedLease:
    return ObservedLease(trial_id=1, number=0, token=token, heartbeat=beat, worker_id="w")


# Looks: seconds since the last one, whether the database was away in between, whether the holder has beaten.
looks = st.lists(
    st.tuples(st.sampled_from([1.0, 5.0, 20.0, GAP, GAP + 1, 100.0]), st.booleans(), st.booleans()),
    max_size=60,
)


@given(looks)
def test_a_lease_is_taken_just_where_its_heartbeat_stood_still_for_the_grace(
    steps: list[tuple[float, bool, bool]],
) -> None:
    watch, now, beat, since = LeaseWatch(GRACE, GAP), 0.0, 0, None
    for seconds, away, beaten in steps:
        now += seconds
        if away:
            watch.forget()
        if away or beaten or seconds > GAP or since is None:
            since = now
        beat += beaten

        taken = watch.expired([seen(beat)], now)

        assert taken == ([seen(beat)] if now - since >= GRACE else [])


# Eighths of a second: their sums are exact, so a look just at the gap stays at it.
@given(st.lists(st.integers(1, int(GAP * 8)).map(lambda eighths: eighths / 8), min_size=1, max_size=100))
def test_a_lease_that_stands_still_is_taken_at_the_first_look_after_the_grace(seconds: list[float]) -> None:
    watch, now = LeaseWatch(GRACE, GAP), 0.0
    watch.expired([seen(7)], now)
    for each in seconds:
        now += each
        assert bool(watch.expired([seen(7)], now)) == (now >= GRACE)


def test_a_lease_that_was_out_of_sight_begins_anew() -> None:
    watch = LeaseWatch(GRACE, GAP)
    for now in range(0, 56, 5):
        watch.expired([seen(7)], float(now))
    watch.expired([], 58.0)

    assert watch.expired([seen(7)], 61.0) == []


def test_leases_are_watched_one_by_one() -> None:
    watch = LeaseWatch(GRACE, GAP)
    for step in range(12):
        assert watch.expired([seen(0, "still"), seen(step, "lively")], step * LOOK) == []

    assert watch.expired([seen(0, "still"), seen(12, "lively"), seen(0, "new")], GRACE) == [seen(0, "still")]
