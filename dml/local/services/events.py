"""What EventBridge's rules cannot deliver on AWS: to a topic whose key shuts it out, without a right; in the server.

Sources: SNS guide, "Key management" (aws:SourceAccount, aws:SourceArn and aws:SourceOrgID in a key's policy are not
supported for EventBridge: its calls of KMS have none of them), EventBridge guide, "Monitoring" (FailedInvocations) and
"Identity-based policies" (a state machine is started with the target's own role, which needs states:StartExecution).
"""

import logging
from collections.abc import Mapping
from typing import Any

from dml.local import hooks
from dml.local.access import iam
from dml.local.access.authorise import Authoriser
from dml.local.access.keys import service_may_use

log = logging.getLogger("dml.events")

CALLS = ("kms:GenerateDataKey", "kms:Decrypt")


class Rules:
    """Deliveries of EventBridge's rules to topics and state machines. Schedules are kept and never fire."""

    def __init__(self, authoriser: Authoriser) -> None:
        self._authoriser = authoriser

    def apply(self) -> None:
        """Extends ministack's EventBridge."""
        events = hooks.module("services.eventbridge")
        self._topics = hooks.existing(hooks.module("services.sns"), "_topics")
        self._publish = hooks.replace(events, "_dispatch_to_sns", self.publish)
        self._invoke = hooks.replace(events, "_invoke_target", self.invoke)
        # A training that nobody has asked for would take all of this machine.
        hooks.replace(events, "_tick_scheduled_rules", lambda: None)

    def publish(self, topic: str, payload: Any) -> None:
        """Publishes to a topic, unless its key's policy does not let EventBridge use the key."""
        key = ((self._topics.get(topic) or {}).get("attributes") or {}).get("KmsMasterKeyId")
        denied = [call for call in CALLS if key and not service_may_use("events.amazonaws.com", key, call, {})]
        if denied:
            log.error(
                "FailedInvocations: EventBridge may not %s with the key of %s; the event is lost",
                " and ".join(denied),
                topic,
            )
            return
        self._publish(topic, payload)

    def invoke(self, target: Mapping[str, Any], event: Any, rule: Mapping[str, Any], *rest: Any, **more: Any) -> None:
        """Invokes a rule's target; a state machine only if the target's role may start it."""
        arn = str(target.get("Arn", ""))
        if ":states:" in arn and (denied := self._denied(str(target.get("RoleArn", "")), arn, rule)):
            log.error("FailedInvocations: EventBridge could not start %s: %s", arn, denied)
            return
        self._invoke(target, event, rule, *rest, **more)

    def _denied(self, role: str, machine: str, rule: Mapping[str, Any]) -> str:
        try:
            worn = iam.credentials_of(role, "events.amazonaws.com", "EventBridge", source=f"rule/{rule.get('Name')}")
        except iam.RoleError as error:
            return str(error)
        return self._authoriser.as_role(worn, "states:StartExecution", machine)
