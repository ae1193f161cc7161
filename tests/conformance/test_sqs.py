"""The SQS driver keeps the contract, as far as moto behaves like SQS."""

from __future__ import annotations

import pytest

from tests.conformance.leases import lease_for
from tests.moto_sqs import sqs_config
from wippy_queue.driver import Driver, Subscription
from wippy_queue.drivers.sqs import KIND
from wippy_queue.drivers.sqs.driver import SqsDriver
from wippy_queue.drivers.sqs.subscription import SqsSubscription
from wippy_queue.ids import EntryId
from wippy_queue.testing.conformance import DriverConformance


class TestSqs(DriverConformance):
    kind = KIND
    patience = 40.0  # moto is slow
    moment = 0.05
    delay = 1.0  # whole seconds are all that there is
    early = 0.1
    largest_body = 700_000  # base64 makes it a third larger

    @pytest.fixture(autouse=True)
    def _keep_endpoint(
        self, sqs_endpoint: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wippy_queue.drivers.sqs.looking._WAIT", 0.0)  # moto gives at once all that it has
        self.endpoint = sqs_endpoint
        self.visibility = lease_for(self, request)

    def make_driver(self) -> Driver:
        return SqsDriver(
            EntryId("test:sqs"), sqs_config(self.endpoint, visibility_timeout=self.visibility, wait_time=0.0)
        )

    def crash(self, driver: Driver) -> None:
        """What a SIGKILL leaves behind: messages that are invisible until their timeout ends, here in a second."""
        assert isinstance(driver, SqsDriver)
        opened, driver._open = driver._open, None
        assert opened is not None
        opened.calls.close()
        opened.polls.close()
        for subscription in opened._subscriptions:
            with subscription._changed:
                held = [{"ReceiptHandle": lease.handle, "VisibilityTimeout": 1} for lease in subscription._held]
            if held:
                subscription._queue._hide(held)

    def lose_lease(self, driver: Driver, subscription: Subscription) -> None:
        """Do what SQS does when a visibility timeout ends, and what the driver does when it was not extended."""
        assert isinstance(subscription, SqsSubscription)
        with subscription._changed:
            held = list(subscription._held)
            for lease in held:
                subscription._lose(lease)
        subscription._queue.hand_back([{"ReceiptHandle": lease.handle} for lease in held])
