"""What EventBridge's rules cannot deliver on AWS: messages to topics whose key shuts it out; in the server.

Sources: SNS guide, "Key management" (aws:SourceAccount, aws:SourceArn and aws:SourceOrgID in a key's policy are not
supported for EventBridge: its calls of KMS have none of them), EventBridge guide, "Monitoring" (FailedInvocations).
"""

import logging
from typing import Any

from dml.local import hooks
from dml.local.access.keys import service_may_use

log = logging.getLogger("dml.events")

CALLS = ("kms:GenerateDataKey", "kms:Decrypt")


class Rules:
    """Deliveries of EventBridge's rules to topics."""

    def apply(self) -> None:
        """Extends ministack's EventBridge."""
        events = hooks.module("services.eventbridge")
        self._topics = hooks.existing(hooks.module("services.sns"), "_topics")
        self._publish = hooks.replace(events, "_dispatch_to_sns", self.publish)

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
