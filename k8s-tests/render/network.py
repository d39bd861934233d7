"""Who reaches whom under the NetworkPolicies, as https://kubernetes.io/docs/concepts/services-networking/network-policies/
says: a connection needs the sender's egress and the receiver's ingress, and who no policy selects is free.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

Policy = dict[str, Any]
Edge = tuple[str, str, int]


@dataclass(frozen=True)
class Party:
    """A pod, or, with no labels, an address outside the cluster."""

    name: str
    ports: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = "mlops"
    address: str = "10.244.0.9"


def edges(policies: Iterable[Policy], parties: Iterable[Party]) -> set[Edge]:
    """(from, to, TCP port) of every connection that is allowed between two parties."""
    policies, parties = list(policies), list(parties)
    return {
        (source.name, target.name, port)
        for source, target in product(parties, parties)
        if source is not target
        for port in target.ports
        if _allowed(policies, source, target, port, "egress") and _allowed(policies, target, source, port, "ingress")
    }


def _allowed(policies: list[Policy], subject: Party, peer: Party, port: int, direction: str) -> bool:
    """Do the policies about one end of a connection let it through?"""
    about = [
        policy["spec"]
        for policy in policies
        if subject.labels
        and subject.namespace == policy["metadata"]["namespace"]
        and selects(policy["spec"]["podSelector"], subject.labels)
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    peers = "from" if direction == "ingress" else "to"
    return not about or any(
        _of_port(rule.get("ports"), port) and _of_peer(rule.get(peers), peer, spec_namespace=subject.namespace)
        for spec in about
        for rule in spec.get(direction) or []
    )


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Does a label selector fit? An empty one does. Raises ValueError for what the chart does not use."""
    if extra := set(selector) - {"matchLabels"}:
        raise ValueError(f"not known here: {extra}")
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _of_port(ports: list[dict[str, Any]] | None, port: int) -> bool:
    return not ports or any(p["port"] == port and p.get("protocol", "TCP") == "TCP" for p in ports)


def _of_peer(peers: list[dict[str, Any]] | None, party: Party, spec_namespace: str) -> bool:
    return not peers or any(_is(peer, party, spec_namespace) for peer in peers)


def _is(peer: dict[str, Any], party: Party, spec_namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        inside = [ipaddress.ip_address(party.address) in ipaddress.ip_network(cidr) for cidr in block.get("except", [])]
        return ipaddress.ip_address(party.address) in ipaddress.ip_network(block["cidr"]) and not any(inside)
    if not party.labels:
        return False
    if "namespaceSelector" in peer:
        namespace = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": party.namespace})
    else:
        namespace = party.namespace == spec_namespace
    return namespace and selects(peer.get("podSelector", {}), party.labels)
