from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.worlds import Scene

from finetuned.domain import decisions, queue, tries
from finetuned.domain.places import PRIORITY_SECONDS
from finetuned.domain.situation import Hold, Situation
from finetuned.domain.waits import Wait, Waits, wait_of


def holders(scene: Scene) -> dict[str, str]:
    return {slot.id: slot.holder[0] for slot in scene.world.slots.values() if slot.holder}


def test_equals_are_first_in_first_out() -> None:
    scene = Scene()
    for name in ("a", "b", "c"):
        scene.submit(name)
    scene.schedule()
    assert holders(scene) == {"cpu:0": "a"}
    scene.run_to_success("a")
    scene.schedule()
    assert holders(scene) == {"cpu:0": "b"}


def test_a_higher_priority_goes_first() -> None:
    scene = Scene()
    scene.submit("low")
    scene.submit("high", priority=1)
    scene.schedule()
    assert holders(scene) == {"cpu:0": "high"}


def test_enough_waiting_beats_a_higher_priority() -> None:
    scene = Scene()
    scene.submit("old")
    scene.now += (PRIORITY_SECONDS + 1) * 1_000_000
    scene.submit("urgent", priority=1)
    scene.schedule()
    assert holders(scene) == {"cpu:0": "old"}


def test_a_job_in_backoff_is_passed_over_and_keeps_its_place() -> None:
    scene = Scene()
    scene.submit("a")
    scene.schedule()
    scene.start("a")
    for name in ("b", "c"):
        scene.submit(name)
    scene.end("a", exit_code=None, signal=9)
    scene.schedule(backing_off={"a"})
    assert holders(scene) == {"cpu:0": "b"}
    scene.run_to_success("b")
    scene.schedule()
    assert holders(scene) == {"cpu:0": "a"}


def test_a_backoff_of_which_nobody_has_said_that_it_is_over_is_not_over() -> None:
    scene = Scene()
    scene.submit("a")
    scene.schedule()
    scene.start("a")
    scene.end("a", exit_code=None, signal=9)
    assert decisions.schedule(scene.world, elapsed=frozenset()) == []
    assert decisions.schedule(scene.world, elapsed={("a", 0)}) == []
    assert decisions.schedule(scene.world, elapsed={("a", 1)})


def test_a_validation_that_came_to_nothing_is_backed_off_from_and_says_why() -> None:
    scene = Scene()
    scene.submit("a", validates=True)
    for attempt, delay_s in ((0, 5.0), (1, 10.0)):
        scene.schedule()
        assert tries.delay_s(scene.world.jobs["a"]) == 0
        scene.end("a", exit_code=None, signal=9)
        assert tries.delay_s(scene.world.jobs["a"]) == delay_s
        assert decisions.schedule(scene.world, elapsed=frozenset()) == []
        held = queue.in_backoff(scene.world.live_jobs(), frozenset())
        waits = Waits(scene.world.live_jobs(), scene.world.slots.values(), Situation(in_backoff=held))
        assert waits["a"].reason == (
            f"backing off before its data are checked again: attempt {attempt} ended: it was killed by signal 9"
        )
    assert decisions.schedule(scene.world, elapsed={("a", 2)})


def test_a_validation_that_was_asked_to_stop_is_followed_by_the_next_at_once() -> None:
    scene = Scene()
    scene.submit("a", validates=True)
    scene.schedule()
    scene.end("a", exit_code=75, asked="lunch")
    assert decisions.schedule(scene.world, elapsed=frozenset())


def test_a_job_that_needs_more_devices_than_are_left_of_the_host_does_not_block_the_others() -> None:
    scene = Scene(devices=2)
    scene.submit("wide", devices=2)
    scene.submit("small")
    scene.fold(
        decisions.devices_detected(
            scene.world, [{"id": "cpu:0", "kind": "cpu", "name": "", "memory_bytes": 1}]
        )
    )
    waits = Waits(scene.world.live_jobs(), scene.world.slots.values())
    assert waits["wide"].reason == "needs 2 devices; this host has 1"
    assert waits["small"].reason == "next; about to start"
    scene.schedule()
    assert holders(scene) == {"cpu:0": "small"}


def test_small_jobs_do_not_starve_one_that_needs_every_device() -> None:
    scene = Scene(devices=2)
    scene.submit("running")
    scene.schedule()
    scene.submit("wide", devices=2)
    scene.submit("small")
    scene.schedule()
    assert holders(scene) == {"cpu:0": "running"}
    scene.run_to_success("running")
    scene.schedule()
    assert holders(scene) == {"cpu:0": "wide", "cpu:1": "wide"}


def test_a_job_that_needs_no_device_starts_although_all_are_held() -> None:
    scene = Scene()
    scene.submit("running")
    scene.schedule()
    scene.submit("waiting")
    scene.submit("light", devices=0)
    scene.schedule()
    assert scene.state("light") == "starting"
    assert scene.state("waiting") == "queued"


def test_only_so_many_validations_run_at_once() -> None:
    scene = Scene(devices=8)
    for name in "abcd":
        scene.submit(name, validates=True)
    scene.schedule()
    scene.schedule()
    under_way = [job.id for job in scene.world.live_jobs() if job.live_attempt is not None]
    assert len(under_way) == queue.MAX_VALIDATIONS


def test_every_waiting_job_says_why_and_queued_ones_their_position() -> None:
    scene = Scene()
    scene.submit("running")
    scene.schedule()
    scene.start("running")
    for name in ("next", "behind", "burnt"):
        scene.submit(name)
    scene.submit("checked", validates=True)
    waits = Waits(
        scene.world.live_jobs(), scene.world.slots.values(), Situation(in_backoff=frozenset({"burnt"}))
    )
    assert waits["next"] == Wait("needs 1 device; 0 of 1 free, held by running", 1)
    assert waits["behind"] == Wait("behind next, which is next", 2)
    assert waits["burnt"].reason.startswith("backing off")
    assert waits["checked"] == Wait("waiting for its data to be checked")
    assert "running" not in waits


def test_a_job_that_asks_for_more_than_is_left_of_the_host_says_so() -> None:
    scene = Scene(devices=2)
    scene.submit("wide", devices=2)
    scene.fold([])
    slots = [slot for slot in scene.world.slots.values() if slot.id == "cpu:0"]
    assert Waits(scene.world.live_jobs(), slots)["wide"].reason == "needs 2 devices; this host has 1"


def test_the_devices_of_an_attempt_that_the_log_does_not_know_are_left_alone() -> None:
    scene = Scene(devices=2)
    scene.submit("wide", devices=2)
    world = scene.world
    assert (
        queue.plan(
            world.live_jobs(),
            world.slots.values(),
            Situation(holds={"cpu:1": Hold("an attempt that the log does not know")}),
        )
        == []
    )
    waits = Waits(
        world.live_jobs(),
        world.slots.values(),
        Situation(holds={"cpu:1": Hold("an attempt that the log does not know")}),
    )
    assert (
        waits["wide"].reason == "needs 2 devices; 1 of 2 free, held by an attempt that the log does not know"
    )


@given(
    jobs=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3), st.booleans()), max_size=12),
    devices=st.integers(1, 4),
)
def test_a_plan_never_gives_a_device_twice_and_never_starts_what_is_held_back(
    jobs: list[tuple[int, int, bool]], devices: int
) -> None:
    scene = Scene(devices=devices)
    held = set()
    for number, (priority, wanted, held_back) in enumerate(jobs):
        scene.submit(f"job-{number}", priority=priority, devices=min(wanted, devices))
        if held_back:
            held.add(f"job-{number}")
    claims = queue.plan(scene.world.live_jobs(), scene.world.slots.values(), Situation(in_backoff=held))
    given_out = [device for claim in claims for device in claim.devices]
    assert len(given_out) == len(set(given_out))
    assert all(len(claim.devices) == claim.job.devices for claim in claims)
    assert not {claim.job.id for claim in claims} & held


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2), st.booleans()), max_size=8),
    st.sets(st.sampled_from(["cpu:0", "cpu:1"])),
)
def test_the_wait_of_one_job_is_what_Waits_say_of_it(
    jobs: list[tuple[int, int, bool]], reserved: set[str]
) -> None:
    scene = Scene(devices=3)
    for number, (devices, priority, _) in enumerate(jobs):
        scene.submit(f"j{number}", devices=devices, priority=priority)
    held = {f"j{number}" for number, (_, _, backing_off) in enumerate(jobs) if backing_off}
    live, slots = list(scene.world.live_jobs()), scene.world.slots.values()
    holds = {device: Hold("a desktop") for device in reserved}
    situation = Situation(in_backoff=held, holds=holds)
    waits = Waits(live, slots, situation)
    for job in live:
        assert wait_of(job, live, slots, situation) == waits.get(job.id)


def holding(reason: str, free_gb: int = 0, *, passing: bool = False) -> dict[str, Hold]:
    return {"cpu:0": Hold(reason, free_gb * 10**9, passing=passing)}


def test_a_job_that_does_not_fit_beside_a_stranger_keeps_nobody_who_does_from_the_device() -> None:
    scene = Scene()
    scene.submit("large", estimate={"device_bytes": 90 * 10**9})
    scene.submit("small", estimate={"device_bytes": 10 * 10**9})
    live, slots = list(scene.world.live_jobs()), scene.world.slots.values()
    situation = Situation(holds=holding("a desktop", 60))
    assert [claim.job.id for claim in queue.plan(live, slots, situation)] == ["small"]
    waits = Waits(live, slots, situation)
    assert waits["large"].reason == "needs 1 device; 0 of 1 free, held by a desktop"
    assert waits["small"].reason == "next; about to start"


def test_a_device_that_is_held_in_passing_is_kept_for_the_first_that_waits_for_it() -> None:
    scene = Scene()
    scene.submit("first")
    scene.submit("second")
    live, slots = list(scene.world.live_jobs()), scene.world.slots.values()
    situation = Situation(holds=holding("it is being looked at", passing=True))
    assert queue.plan(live, slots, situation) == []
    assert Waits(live, slots, situation)["second"].reason == "behind first, which is next"
