"""What the API server logged of requests."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AuditedRequest:
    """A request for a resource that was answered."""

    verb: str
    group: str
    resource: str
    """With the subresource, if it is for one: `selftaughtruns/status`."""
    name: str
    status: int
    allowed: bool
    """Whether the user had the right to it; a quota may have refused it all the same."""

    @property
    def right(self) -> tuple[str, str, str]:
        """Group, resource and verb, as rules of roles name them."""
        return self.group, self.resource, self.verb


def audited(log: Path, offset: int, user: str) -> list[AuditedRequest]:
    """Requests of a user in what was logged behind an offset. Discovery is left out: everybody may do that."""
    found = []
    with log.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if user.encode() not in line:
                continue
            event = json.loads(line)
            target = event.get("objectRef", {})
            if event["user"]["username"] != user or "resource" not in target:
                continue
            parts = (target["resource"], target.get("subresource"))
            found.append(
                AuditedRequest(
                    verb=event["verb"],
                    group=target.get("apiGroup", ""),
                    resource="/".join(filter(None, parts)),
                    name=target.get("name", ""),
                    status=event.get("responseStatus", {}).get("code", 0),
                    allowed=event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow",
                )
            )
    return found
