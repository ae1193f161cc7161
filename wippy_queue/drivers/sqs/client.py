"""The one place that knows boto3: calls in our words, and every error as one of ours, without secrets."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from wippy_queue.drivers.sqs.options import SqsConfig
from wippy_queue.errors import (
    Conflict,
    Internal,
    Invalid,
    NotFound,
    PermissionDenied,
    RateLimited,
    Unavailable,
    WippyQueueError,
)
from wippy_queue.redact import redact

CONNECT_TIMEOUT: Final = 5.0  # seconds
_READ_MARGIN: Final = 5.0  # seconds that an answer may take beyond a long poll
_ANY_REGION: Final = "us-east-1"  # for endpoints that are not AWS's own and do not care
_SYSTEM_ATTRIBUTES: Final = ["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"]

_ABSENT: Final = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})
_THROTTLED: Final = frozenset(
    {
        "OverLimit",
        "RequestThrottled",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "KmsThrottled",
    }
)
_REFUSED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# Not the same as wrong credentials: these may do something else, so a ping that is answered so has been answered.
_MERELY_FORBIDDEN: Final = frozenset({"AccessDenied", "AccessDeniedException"})
_LOST: Final = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidIdFormat"})
_TAKEN: Final = frozenset({"QueueAlreadyExists", "QueueNameExists"})
_LATER: Final = frozenset({"QueueDeletedRecently", "PurgeQueueInProgress", "InternalError", "ServiceUnavailable"})

_making: Final = threading.Lock()  # boto3's sessions and the making of clients are not thread-safe; clients are

Failures = Mapping[int, WippyQueueError]  # by position in the batch; what is not in it went well


def connect(config: SqsConfig, name: str, connections: int) -> Client:
    """Return a client; nothing is sent yet.

    Raises:
        Invalid: there is no region, or the credentials are incomplete.
        PermissionDenied: there are no credentials.
    """
    aws = config.config
    settings = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=config.wait_time + _READ_MARGIN,
        max_pool_connections=connections,
        retries={"total_max_attempts": 1},  # who calls knows until when a repetition makes sense
        tcp_keepalive=True,
        use_fips_endpoint=config.use_fips or None,
        use_dualstack_endpoint=config.use_dual_stack or None,
    )
    try:
        with _making:
            session = boto3.Session(
                aws_access_key_id=aws.access_key_id if aws else None,
                aws_secret_access_key=aws.secret_access_key if aws else None,
                aws_session_token=aws.session_token if aws else None,
                region_name=aws.region if aws else None,
            )
            region = session.region_name or (None if config.endpoint is None else _ANY_REGION)
            client = session.client("sqs", region_name=region, endpoint_url=config.endpoint, config=settings)
            found = session.get_credentials()
    except exceptions.NoRegionError:
        raise Invalid(
            f"driver {name}: no AWS region; set `region` in the config.aws entry, or AWS_DEFAULT_REGION"
        ) from None
    except (exceptions.BotoCoreError, ValueError) as error:
        raise _Scrubber(config).translate(error, f"driver {name}") from None
    if found is None:
        raise PermissionDenied(
            f"driver {name}: no AWS credentials were found; name a config.aws entry under `config`, or set"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    checked = not config.disable_message_checksum_validation
    return Client(client, _Scrubber(config), name, checked)


class Client:
    """Calls to the service. Every method raises a `WippyQueueError`, ``retryable`` where the trouble may pass.

    Thread safety: every method may be called from any thread; each blocks until it is answered.
    """

    def __init__(self, client: Any, scrubber: _Scrubber, name: str, checked: bool) -> None:
        self._client = client
        self._scrubber = scrubber
        self._name = name
        self._checked = checked  # whether checksums of bodies are compared

    def ping(self) -> None:
        """Raise when the service does not answer, or does not know us."""
        try:
            self._call(self._client.list_queues, MaxResults=1)
        except PermissionDenied as error:
            if error.details.get("code") not in _MERELY_FORBIDDEN:
                raise

    def url_of(self, name: str) -> str | None:
        """Return the URL of a queue, None where there is none."""
        try:
            return str(self._call(self._client.get_queue_url, QueueName=name)["QueueUrl"])
        except NotFound:
            return None

    def create(self, name: str, attributes: Mapping[str, str]) -> str:
        """Create a queue and return its URL. Raises Conflict where there is one with other attributes."""
        return str(self._call(self._client.create_queue, QueueName=name, Attributes=dict(attributes))["QueueUrl"])

    def attributes(self, url: str) -> dict[str, str]:
        answer = self._call(self._client.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])
        return dict(answer.get("Attributes", {}))

    def receive(self, url: str, count: int, wait: float, visibility: int) -> list[dict[str, Any]]:
        answer = self._call(
            self._client.receive_message,
            QueueUrl=url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=round(wait),
            VisibilityTimeout=visibility,
            AttributeNames=_SYSTEM_ATTRIBUTES,
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", ()))

    def send(self, url: str, entries: Sequence[Mapping[str, Any]]) -> Failures:
        answer, failures = self._batch(self._client.send_message_batch, url, entries)
        for sent in answer.get("Successful", ()) if self._checked else ():
            index = int(sent["Id"])
            if sent.get("MD5OfMessageBody") != checksum(entries[index]["MessageBody"]):
                failures[index] = Internal(f"{self._name}: SQS has stored another body than was sent to it")
        return failures

    def delete(self, url: str, entries: Sequence[Mapping[str, Any]]) -> Failures:
        return self._batch(self._client.delete_message_batch, url, entries)[1]

    def hide(self, url: str, entries: Sequence[Mapping[str, Any]]) -> Failures:
        return self._batch(self._client.change_message_visibility_batch, url, entries)[1]

    def purge(self, url: str) -> None:
        self._call(self._client.purge_queue, QueueUrl=url)

    def intact(self, raw: Mapping[str, Any]) -> bool:
        """Return whether a received message has the body that its checksum tells of."""
        return not self._checked or "MD5OfBody" not in raw or raw["MD5OfBody"] == checksum(raw["Body"])

    def _batch(
        self, method: Callable[..., Any], url: str, entries: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, Any], dict[int, WippyQueueError]]:
        numbered = [{**entry, "Id": str(index)} for index, entry in enumerate(entries)]
        answer = self._call(method, QueueUrl=url, Entries=numbered)
        failures = {
            int(failed["Id"]): self._scrubber.fault(
                self._name, failed.get("Code", ""), failed.get("Message", ""), ours=failed.get("SenderFault", False)
            )
            for failed in answer.get("Failed", ())
        }
        told = failures.keys() | {int(done["Id"]) for done in answer.get("Successful", ())}
        for index in set(range(len(entries))) - told:
            failures[index] = Unavailable(f"{self._name}: SQS did not say what became of an entry of a batch")
        return answer, failures

    def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return method(**arguments)
        except (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError, OSError) as error:
            raise self._scrubber.translate(error, self._name) from None


class _Scrubber:
    """Makes errors of boto3 ours, and keeps out of them what must not be seen."""

    def __init__(self, config: SqsConfig) -> None:
        aws = config.config
        known = (aws.secret_access_key, aws.session_token, aws.access_key_id) if aws is not None else ()
        self._secrets = [secret for secret in known if secret]

    def translate(self, error: Exception, name: str) -> WippyQueueError:
        if isinstance(error, exceptions.ClientError):
            said = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
            code, alias = said.get("Code", ""), str(said.get("QueryErrorCode", ""))
            return self.fault(name, code, said.get("Message", ""), ours=status < 500, alias=alias)
        text = self._clean(str(error) or type(error).__name__)
        if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
            return PermissionDenied(f"{name}: {text}; see `config` of the driver")
        if isinstance(error, (exceptions.ParamValidationError, exceptions.ValidationError, ValueError)):
            return Invalid(f"{name}: {text}")
        return Unavailable(f"{name}: {text}")  # refused, timed out, closed; the credentials' source is away

    def fault(self, name: str, code: str, text: str, *, ours: bool, alias: str = "") -> WippyQueueError:
        """Return what the service said as an error; ``ours`` where it blames the caller."""
        codes = {code, code.rpartition("#")[2], code.rpartition(".")[2], alias}
        details = {"code": code}
        if codes & _REFUSED:  # what AWS says of a wrong signature repeats headers that were signed
            return PermissionDenied(
                f"{name}: SQS refuses: {code}; see the credentials and their IAM policy", details=details
            )
        said = f"{name}: {self._clean(text) or 'no reason given'} ({code})"
        if codes & _ABSENT:
            return NotFound(said, details=details)
        if codes & _THROTTLED:
            return RateLimited(said, details=details)
        if codes & _LATER or not ours:
            return Unavailable(said, details=details)
        if codes & (_LOST | _TAKEN):
            return Conflict(said, details=details)
        return Invalid(said, details=details)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)


def checksum(body: str) -> str:
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
