"""Which engines there should be: nobody who asks goes without, and no key has two."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.domain.worlds import Scene

from finetuned.domain import decisions, engines, facts, queue
from finetuned.domain.engines import Demand, Failed, Plan, Wanted
from finetuned.domain.job import SERVING
from finetuned.domain.places import POINT
from finetuned.domain.states import JobState

KEYS = ("a", "b")


def need(key: str) -> dict[str, Any]:
    params = {"model": key}
    return {
        "kind": "engine", "params": params, "key": engines.key_of("engine", params), "model": key, "adapter": None,
    }  # fmt: skip


def wanted(key: str, **changes: Any) -> Wanted:
    return Wanted(kind="engine", params={"model": key}, model=key, **changes)


def asker(scene: Scene, job_id: str, key: str, **changes: Any) -> None:
    scene.submit(job_id, engine=need(key), devices=0, **changes)


def engine(scene: Scene, job_id: str, key: str) -> None:
    scene.submit(job_id, serves=wanted(key).key)
    scene.schedule()
    scene.start(job_id)
    scene.report(job_id, facts.JobPhase(phase=SERVING))


def plan(scene: Scene, demand: Demand = Demand(), *, contested: bool = False) -> Plan:  # noqa: B008 - frozen
    return engines.plan(scene.world.live_jobs(), demand, contested=contested)


def test_an_engine_that_a_job_asks_for_is_started_once_for_all_who_share_it() -> None:
    scene = Scene()
    asker(scene, "job-1", "a")
    asker(scene, "job-2", "a", priority=5)
    (found,) = plan(scene).start
    assert (found.model, found.priority) == ("a", 5)


def test_an_engine_that_is_there_is_not_started_again() -> None:
    scene = Scene()
    asker(scene, "job-1", "a")
    engine(scene, "job-2", "a")
    assert plan(scene) == Plan()


def test_an_engine_that_is_being_ended_is_waited_for_before_the_next_one() -> None:
    scene = Scene()
    engine(scene, "job-2", "a")
    scene.fold(decisions.cancel(scene.world, "job-2", actor="engines"))
    asker(scene, "job-1", "a")
    assert plan(scene) == Plan()
    assert engines.engine_of(wanted("a").key, scene.world.live_jobs()) is None


def test_a_request_that_nobody_logs_asks_too() -> None:
    scene = Scene()
    online = {wanted("a").key: wanted("a", since=7)}
    assert [each.since for each in plan(scene, Demand(online=online)).start] == [7]


def test_an_engine_that_failed_is_tried_again_only_for_who_asked_later() -> None:
    scene = Scene()
    key = wanted("a").key
    failed = {key: Failed(10, "it has no weights")}
    assert plan(scene, Demand(online={key: wanted("a", since=10)}, failed=failed)).start == ()
    assert len(plan(scene, Demand(online={key: wanted("a", since=11)}, failed=failed)).start) == 1


def test_an_engine_that_nobody_asks_stays_until_its_device_is_wanted_or_it_idled_out() -> None:
    scene = Scene()
    engine(scene, "job-1", "a")
    assert plan(scene).stop == ()
    ((_, contested),) = plan(scene, contested=True).stop
    assert "waits for its device" in contested
    ((_, idle),) = plan(scene, Demand(idle=frozenset({"job-1"}))).stop
    assert "for a while" in idle


def test_an_engine_that_is_asked_is_not_ended_for_others() -> None:
    scene = Scene()
    engine(scene, "job-1", "a")
    asker(scene, "job-2", "a")
    assert plan(scene, Demand(idle=frozenset({"job-1"})), contested=True).stop == ()


def test_an_engine_that_waits_for_its_device_is_given_up_with_those_who_asked() -> None:
    scene = Scene()
    scene.submit("job-1", serves=wanted("a").key)
    ((stopped, why),) = plan(scene).stop
    assert (stopped.id, why) == ("job-1", "nobody asks for it any more")


@pytest.mark.parametrize(("state", "asks"), [("queued", True), ("running", True), ("ended", False)])
def test_a_job_asks_as_long_as_it_may_run(state: str, asks: bool) -> None:
    scene = Scene()
    asker(scene, "job-1", "a")
    if state != "queued":
        engine(scene, "job-9", "a")
        scene.schedule()
        scene.start("job-1")
    if state == "ended":
        scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1"))
        scene.end("job-1")
    assert bool(engines.demanded(scene.world.live_jobs(), Demand())) is asks


def test_jobs_contest_devices_only_where_too_few_are_free() -> None:
    scene = Scene(devices=2)
    engine(scene, "job-1", "a")
    scene.submit("job-2")
    live, slots = list(scene.world.live_jobs()), list(scene.world.slots.values())
    assert not engines.is_contested(live, slots, frozenset())
    scene.submit("job-3", devices=2)
    live = list(scene.world.live_jobs())
    assert engines.is_contested(live, slots, frozenset())
    assert not engines.is_contested(live, slots, frozenset({"job-3"}))


def test_the_key_of_an_engine_is_what_it_is_in_whatever_order_it_is_said() -> None:
    assert engines.key_of("e", {"a": 1, "b": 2}) == engines.key_of("e", {"b": 2, "a": 1})
    assert engines.key_of("e", {"a": 1}) != engines.key_of("e", {"a": 2})
    assert engines.key_of("e", {"a": 1}) != engines.key_of("f", {"a": 1})


class Keeping(RuleBasedStateMachine):
    """What the keeper does, step by step, against jobs and requests that come and go, and engines that fail."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(devices=1)
        self.online: dict[str, Wanted] = {}
        self.failed: dict[str, Failed] = {}
        self.count = 0

    @property
    def demand(self) -> Demand:
        online = {wanted(key).key: each for key, each in self.online.items()}
        return Demand(online=online, failed=self.failed)

    def _new(self) -> str:
        self.count += 1
        return f"job-{self.count}"

    def _engines(self) -> list[Any]:
        return list(engines.engines(self.scene.world.live_jobs()))

    @rule(key=st.sampled_from(KEYS))
    def a_job_asks(self, key: str) -> None:
        asker(self.scene, self._new(), key)

    @rule(key=st.sampled_from(KEYS))
    def a_request_comes(self, key: str) -> None:
        self.online[key] = wanted(key, since=len(self.scene.events), place=self.scene.now)

    @rule()
    def time_passes(self) -> None:
        self.scene.now += POINT

    @precondition(lambda self: self.online)
    @rule()
    def a_request_goes(self) -> None:
        self.online.popitem()

    @rule()
    def a_training_comes(self) -> None:
        self.scene.submit(self._new())

    @rule()
    def what_may_start_starts(self) -> None:
        self.scene.schedule()
        for job in list(self.scene.world.live_jobs()):
            if job.state is JobState.STARTING:
                self.scene.start(job.id)

    @rule(data=st.data())
    def something_ends(self, data: st.DataObject) -> None:
        live = [job.id for job in self.scene.world.live_jobs() if job.live_attempt is not None]
        if live:
            self.scene.end(data.draw(st.sampled_from(live)))

    @rule(key=st.sampled_from(KEYS))
    def an_engine_cannot_be_had(self, key: str) -> None:
        if not any(each.serves == wanted(key).key for each in self._engines()):
            self.failed[wanted(key).key] = Failed(len(self.scene.events), "it has no weights")

    @rule()
    def the_keeper_looks(self) -> None:
        world = self.scene.world
        contested = engines.is_contested(world.live_jobs(), world.slots.values(), frozenset())
        contender = queue.contender(world.live_jobs(), world.slots.values())
        found = engines.plan(world.live_jobs(), self.demand, contested=contested, contender=contender)
        for stopped, _ in found.stop:
            self.scene.fold(decisions.cancel(world, stopped.id, actor="engines"))
        for started in found.start:
            self.failed.pop(started.key, None)
            self.scene.submit(self._new(), serves=started.key)
        self.nobody_who_asks_is_left_without_an_engine_or_a_reason()

    def nobody_who_asks_is_left_without_an_engine_or_a_reason(self) -> None:
        present = {each.serves for each in self._engines()}
        for key, each in engines.demanded(self.scene.world.live_jobs(), self.demand).items():
            assert key in present or engines.has_failed(each.since, self.failed.get(key))

    @invariant()
    def no_key_has_two_live_engines(self) -> None:
        keys = [each.serves for each in self._engines()]
        assert len(keys) == len(set(keys))


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(max_examples=50, stateful_step_count=30)
