"""boto3 without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import boto3
from botocore.config import Config

from wippy_queue.bench.client import Client, Fetched
from wippy_queue.errors import Unavailable

_BATCH: Final = 10  # messages of a call, at most
_POLL: Final = 1  # seconds; SQS knows no shorter long poll


class Boto3(Client):
    """One client for all threads; calls of ten."""

    def __init__(self, address: str | None, window: int) -> None:
        super().__init__(address, window)
        settings = Config(max_pool_connections=32, retries={"total_max_attempts": 1}, tcp_keepalive=True)
        self._sqs = boto3.Session().client("sqs", endpoint_url=address, config=settings)
        self._urls = {name: self._sqs.create_queue(QueueName=name)["QueueUrl"] for name in (self.tasks, self.done)}

    def send(self, name: str, body: bytes) -> None:
        self._sqs.send_message(QueueUrl=self._urls[name], MessageBody=body.decode())

    def send_many(self, name: str, bodies: Sequence[bytes]) -> None:
        self._in_tens(self._sqs.send_message_batch, name, "MessageBody", [body.decode() for body in bodies])

    def fetch(self, limit: int) -> Fetched:
        answer = self._sqs.receive_message(
            QueueUrl=self._urls[self.tasks], MaxNumberOfMessages=min(limit, _BATCH), WaitTimeSeconds=_POLL
        )
        return [(message["ReceiptHandle"], message["Body"].encode()) for message in answer.get("Messages", ())]

    def ack(self, receipts: Sequence[Any]) -> None:
        self._in_tens(self._sqs.delete_message_batch, self.tasks, "ReceiptHandle", receipts)

    def _in_tens(self, call: Callable[..., Any], name: str, field: str, values: Sequence[str]) -> None:
        for start in range(0, len(values), _BATCH):
            ten = enumerate(values[start : start + _BATCH])
            answer = call(
                QueueUrl=self._urls[name], Entries=[{"Id": str(number), field: value} for number, value in ten]
            )
            if answer.get("Failed"):
                raise Unavailable(f"SQS refused a part of a batch: {answer['Failed'][0]}")

    def close(self) -> None:
        super().close()
        for url in self._urls.values():
            self._sqs.delete_queue(QueueUrl=url)
        self._sqs.close()
