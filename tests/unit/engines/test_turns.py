"""Whose turn a device is: those who ask an engine, or who waits for its device."""

from __future__ import annotations

from collections.abc import Mapping

from tests.unit.domain.worlds import Scene
from tests.unit.engines.test_plan import asker, engine, wanted

from finetuned.domain import decisions, engines, facts, queue
from finetuned.domain.engines import Demand, Plan, Wanted
from finetuned.domain.job import SERVING, Job
from finetuned.domain.places import POINT, place
from finetuned.domain.situation import Situation
from finetuned.domain.waits import Waits, wait_of

LONG = POINT + 1_000_000  # microseconds: more than a point of priority is worth


def plan(scene: Scene, demand: Demand = Demand()) -> Plan:  # noqa: B008 - frozen
    live, slots = list(scene.world.live_jobs()), list(scene.world.slots.values())
    contender = queue.contender(live, slots)
    contested = engines.is_contested(live, slots, frozenset())
    return engines.plan(live, demand, contested=contested, contender=contender)


def stopped(scene: Scene, demand: Demand = Demand()) -> list[str]:  # noqa: B008 - frozen
    return [job.id for job, _ in plan(scene, demand).stop]


def online(scene: Scene, key: str) -> Demand:
    """A request that came just now."""
    return Demand(online={wanted(key).key: wanted(key, place=place(scene.now, 0))})


def ask(scene: Scene, job_id: str, key: str, **changes: int) -> None:
    """A job that asks an engine which is there."""
    asker(scene, job_id, key, **changes)
    scene.schedule()
    scene.start(job_id)


def test_who_asks_an_engine_goes_before_who_has_waited_only_a_little_longer_so_that_swaps_are_few() -> None:
    scene = Scene()
    engine(scene, "engine", "a")
    scene.submit("training")
    scene.now += POINT // 2
    ask(scene, "batch", "a")
    scene.now += 10 * POINT
    assert stopped(scene) == []


def test_requests_that_keep_coming_do_not_hold_a_device_for_ever() -> None:
    scene = Scene()
    engine(scene, "engine", "a")
    scene.submit("training")
    assert stopped(scene, online(scene, "a")) == []
    scene.now += LONG
    ((_, why),) = plan(scene, online(scene, "a")).stop
    assert why == "training has waited longer for a device than all who ask it"


def test_an_engine_that_gave_its_device_away_is_asked_for_again_and_stands_behind() -> None:
    scene = Scene()
    engine(scene, "engine", "a")
    scene.submit("training")
    scene.now += LONG
    demand = online(scene, "a")
    assert stopped(scene, demand) == ["engine"]
    scene.fold(decisions.cancel(scene.world, "engine", actor="engines"))
    scene.end("engine")
    assert [each.model for each in plan(scene, demand).start] == ["a"]
    scene.submit("next-engine", serves=wanted("a").key)
    scene.schedule()
    assert scene.world.slots["cpu:0"].holder == ("training", 1)
    assert Waits(scene.world.live_jobs(), scene.world.slots.values())["next-engine"].position == 1


def test_a_batch_that_was_there_before_keeps_its_engine() -> None:
    scene = Scene()
    engine(scene, "engine", "a")
    ask(scene, "batch", "a")
    scene.submit("training")
    scene.now += LONG
    assert stopped(scene, online(scene, "a")) == []


def test_a_batch_that_comes_too_late_waits_behind_the_job_that_gets_the_device() -> None:
    scene = Scene()
    engine(scene, "engine", "a")
    ask(scene, "batch", "a")
    scene.submit("training")
    scene.now += LONG
    asker(scene, "late", "a")
    scene.schedule()
    assert scene.state("late") == "queued"
    live, slots = list(scene.world.live_jobs()), scene.world.slots.values()
    reason = "behind training, which has waited longer for a device and gets that of an engine"
    assert Waits(live, slots)["late"].reason == reason
    assert wait_of(scene.world.jobs["late"], live, slots) == Waits(live, slots)["late"]


def test_only_as_many_engines_leave_as_the_next_job_needs_and_first_those_asked_by_the_last_to_come() -> None:
    scene = Scene(devices=2)
    engine(scene, "engine-a", "a")
    engine(scene, "engine-b", "b")
    scene.submit("training")
    scene.now += LONG
    first, second = wanted("a", place=place(scene.now, 0)), wanted("b", place=place(scene.now + 1, 0))
    demand = Demand(online={each.key: each for each in (first, second)})
    assert stopped(scene, demand) == ["engine-b"]


def test_no_engine_leaves_for_a_job_that_would_not_fit_all_the_same() -> None:
    scene = Scene(devices=2)
    scene.submit("other")
    scene.schedule()
    engine(scene, "engine", "a")
    scene.submit("wide", devices=2)
    scene.now += LONG
    assert stopped(scene, online(scene, "a")) == []


def test_an_engine_that_nobody_asks_leaves_before_one_that_is_asked() -> None:
    scene = Scene(devices=2)
    engine(scene, "asked", "a")
    engine(scene, "unasked", "b")
    scene.submit("training")
    scene.now += LONG
    assert stopped(scene, online(scene, "a")) == ["unasked"]


def as_asked(scene: Scene) -> Mapping[str, Job]:
    return {job.id: job for job in engines.as_asked(scene.world.live_jobs())}


def test_an_engine_has_the_priority_and_the_place_of_the_first_who_asks_it() -> None:
    scene = Scene()
    asker(scene, "patient", "a")
    scene.now += 1_000_000
    asker(scene, "urgent", "a", priority=3)
    scene.submit("engine", serves=wanted("a").key, priority=9)
    found = as_asked(scene)["engine"]
    urgent = scene.world.jobs["urgent"]
    assert found.priority == 3
    assert place(found.created_at, found.priority) == place(urgent.created_at, 3)


def test_an_engine_that_no_job_asks_has_no_priority_of_who_asked_it_first() -> None:
    scene = Scene()
    scene.submit("engine", serves=wanted("a").key, priority=9, preemptible=True)
    scene.schedule()
    number = scene.start("engine")
    scene.report("engine", facts.JobPhase(phase=SERVING))
    assert as_asked(scene)["engine"].priority == 0
    scene.submit("urgent", priority=1)
    situation = Situation(ripe=frozenset({("engine", number)}))
    ((victim, by),) = queue.victims(scene.world.live_jobs(), scene.world.slots.values(), situation)
    assert (victim.id, by.id) == ("engine", "urgent")


def test_a_job_of_more_priority_asks_beside_as_many_of_less_as_may() -> None:
    scene = Scene()
    engine(scene, "engine", "a")
    for number in range(queue.MAX_ASKING):
        ask(scene, f"low-{number}", "a")
    asker(scene, "equal", "a")
    asker(scene, "urgent", "a", priority=1)
    scene.schedule()
    assert (scene.state("equal"), scene.state("urgent")) == ("queued", "starting")


def test_those_who_ask_the_engine_that_waits_do_not_wait_behind_it() -> None:
    scene = Scene()
    scene.submit("training")
    scene.schedule()
    scene.submit("engine", serves=wanted("a").key)
    asker(scene, "first", "a")
    scene.now += LONG
    asker(scene, "late", "a")
    scene.schedule()
    assert (scene.state("first"), scene.state("late")) == ("starting", "starting")


def test_what_is_asked_online_has_the_place_of_now() -> None:
    early, late = (
        Wanted(kind="e", params={}, model="m", place=1),
        Wanted(kind="e", params={}, model="m", place=2),
    )
    merged = engines.demanded([], Demand(online={early.key: late}))
    assert merged[early.key].place == 2


def test_who_asks_an_engine_is_behind_others_only_while_as_many_as_may_ask_it() -> None:
    scene = Scene()
    engine(scene, "engine", "a")
    asker(scene, "first", "a")
    reason = wait_of(scene.world.jobs["first"], scene.world.live_jobs(), scene.world.slots.values())
    assert reason is not None
    assert reason.reason == "next; about to start"
    for job_id in ("second", "third"):
        asker(scene, job_id, "a")
    scene.schedule()
    waits = Waits(scene.world.live_jobs(), scene.world.slots.values())
    assert waits["third"].reason == "behind 2 jobs that ask the same engine"
