"""Servers that are killed under load (kill -9), and come back with their data, without it, or as another one."""

from __future__ import annotations

import uuid

from tests.faults.application import AMQP, REDIS, RESUMES
from tests.faults.conftest import Start
from tests.rabbit_server import RabbitServer
from tests.redis_servers import RedisServer, follows, kill_master
from tests.support import eventually


def test_a_killed_broker_loses_nothing_that_it_has_confirmed(own_rabbit: RabbitServer, start: Start) -> None:
    """Nor does a quorum queue, whose messages are counted another way."""
    driver = {**AMQP, "url": own_rabbit.url}
    applications = [start(driver, options={"queue_type": kind}) for kind in ("classic", "quorum")]
    loads = [application.load() for application in applications]
    for application in applications:
        application.more()
    # RabbitMQ writes what it knows of a new quorum queue half a second later; killed before, it never gets it up again.
    own_rabbit.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
    own_rabbit.kill()
    for application in applications:
        application.until_refused(2)
    own_rabbit.start()
    for application in applications:
        application.goes_on(RESUMES)
    for application, load, kind in zip(applications, loads, ("classic", "quorum"), strict=True):
        application.balance(load, f"amqp, {kind}")


def test_a_broker_that_comes_back_empty_is_used_again(own_rabbit: RabbitServer, start: Start) -> None:
    """Its queues are gone: they are declared anew, and only what was in them is lost."""
    application = start({**AMQP, "url": own_rabbit.url})
    application.release.clear()  # so that the broker has all that it has confirmed
    load = application.load()
    application.more()
    own_rabbit.kill()
    application.until_refused(2)
    application.end(load)
    gone = frozenset(application.confirmed)
    own_rabbit.forget()
    own_rabbit.start()
    application.release.set()
    load = application.load()
    application.goes_on(RESUMES)
    application.more()
    application.balance(load, "amqp, empty", gone)
    assert gone - set(application.handled), "what the broker lost is lost"


def test_a_replica_takes_the_place_of_a_killed_master_in_a_cluster(
    redis_cluster: list[RedisServer], start: Start
) -> None:
    """What the master had confirmed and not yet told its replica is the cluster's loss, and nothing else."""
    master, *_, replica = redis_cluster
    name = next(name for name in iter(lambda: f"faults-{uuid.uuid4()}", "") if _slot(master, name) <= 5460)
    application = start({**REDIS, "url": redis_cluster[1].url, "cluster": True}, queue_name=name)
    load = application.load()
    application.more()
    application.release.clear()  # so that something is there to be lost
    before = application.refused.total()
    gone, _ = kill_master(master, replica, meanwhile=application.more)
    application.release.set()
    application.until_refused(before + 1)
    application.goes_on(RESUMES)
    application.more()
    assert replica.info("replication")["role"] == "master"
    application.balance(load, "redis cluster", gone)
    assert gone, "something was lost"
    master.start()
    eventually(lambda: follows(master), "the old master has become a replica")


def _slot(node: RedisServer, name: str) -> int:
    return int(node.ask("CLUSTER", "KEYSLOT", name))
