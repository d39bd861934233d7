"""Whom alerts reach: receivers, the egress that they need, and a configuration of one's own."""

from __future__ import annotations

from typing import Any

import custom_resources
import pytest
import yaml
from chart import ROOT, Manifest, named, refusals, render_chart, rendered_text, template, title
from profiles import PROFILES

NOT_RETRAIN = {"name": "action", "value": "retrain", "matchType": "!="}
SLACK = {"channel": "#ml", "existingSecret": "slack", "key": "url"}
EMAIL = {"to": "a@example.com", "from": "b@example.com", "smarthost": "smtp.example.com:587"}
ACCOUNT = {"username": "mlops", "existingSecret": "mail", "key": "password"}
PAGERDUTY = {"existingSecret": "pagerduty", "key": "routing"}
SECRET = {"existingSecret": "hook", "key": "url"}
OUTSIDE = ["0.0.0.0/0", "::/0"]  # but for the clouds' metadata services: test_edges.py
MATCHERS = ['severity="critical"', 'model!~"iris|a=b"']
OWN = {"route": {"receiver": "mine"}, "receivers": [{"name": "mine"}]}


def told(**alertmanager: Any) -> dict[str, Any]:
    return {"monitoring": {"alertmanager": alertmanager}}


def receivers(*given: dict[str, Any]) -> dict[str, Any]:
    return told(receivers=[{"name": f"r{number}", **one} for number, one in enumerate(given)])


def config(values: dict[str, Any], name: str = "r0") -> dict[str, Any]:
    manifest = named(render_chart(values), "AlertmanagerConfig", f"mlops-receiver-{name}")
    assert not custom_resources.invalid(manifest)
    spec: dict[str, Any] = manifest["spec"]
    assert spec["route"]["receiver"] == spec["receivers"][0]["name"] == name
    return spec


def way(given: dict[str, Any]) -> dict[str, Any]:
    """What the receiver's one way becomes."""
    (receiver,) = config(receivers(given))["receivers"]
    ((entry,),) = [entries for key, entries in receiver.items() if key != "name"]
    assert entry["sendResolved"] is True
    return dict(entry)


def egress(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Alertmanager's rules but for DNS and the retrainer."""
    policy = named(render_chart(values), "NetworkPolicy", "mlops-alertmanager")
    return list(policy["spec"]["egress"][2:])


def says(values: dict[str, Any]) -> str:
    done = template(values)
    assert done.returncode != 0, "accepted"
    return done.stderr


def test_slack_gets_what_is_wrong_and_where_help_is() -> None:
    made = way({"slack": SLACK})
    assert made["channel"] == "#ml"
    assert made["apiURL"] == {"name": "slack", "key": "url"}
    for annotation in ("summary", "description", "runbook_url"):
        assert f"{{{{ .Annotations.{annotation} }}}}" in made["text"]


def test_mail_with_an_account_and_without() -> None:
    made = way({"email": EMAIL | ACCOUNT})
    assert (made["authUsername"], made["authPassword"]) == ("mlops", {"name": "mail", "key": "password"})
    assert made["requireTLS"] is True
    plain = way({"email": EMAIL | {"requireTls": False}})
    assert plain["requireTLS"] is False
    assert not {"authUsername", "authPassword"} & set(plain)


def test_webhooks_and_pagerduty() -> None:
    assert way({"webhook": {"url": "https://x.example.com/a?b=c"}})["url"] == "https://x.example.com/a?b=c"
    assert way({"webhook": SECRET})["urlSecret"] == {"name": "hook", "key": "url"}
    assert way({"pagerduty": PAGERDUTY})["routingKey"] == {"name": "pagerduty", "key": "routing"}
    assert way({"pagerduty": PAGERDUTY | {"severity": "info"}})["severity"] == "info"


def test_who_gets_which_alerts() -> None:
    everybody = receivers({"slack": SLACK}, {"slack": SLACK, "matchers": []}, {"slack": SLACK, "matchers": MATCHERS})
    assert config(everybody)["route"]["matchers"] == [NOT_RETRAIN], "the retrainer sees to the others"
    assert "matchers" not in config(everybody, "r1")["route"]
    assert config(everybody, "r2")["route"]["matchers"] == [
        {"name": "severity", "value": "critical", "matchType": "="},
        {"name": "model", "value": "iris|a=b", "matchType": "!~"},
    ]
    alone = {**receivers({"slack": SLACK}), "retrainer": {"enabled": False}}
    assert "matchers" not in config(alone)["route"], "nobody else sees to drift"


@pytest.mark.parametrize(
    ("given", "ports", "namespaces"),
    [
        ({"slack": SLACK}, [443], []),
        ({"pagerduty": PAGERDUTY, "slack": SLACK}, [443], []),
        ({"email": EMAIL}, [587], []),
        ({"email": EMAIL, "slack": SLACK}, [443, 587], []),
        ({"webhook": {"url": "http://x.example.com"}}, [80], []),
        ({"webhook": {"url": "https://x.example.com/a:1"}}, [443], []),
        ({"webhook": {"url": "https://x.example.com:8443/a"}}, [8443], []),
        ({"webhook": {"url": "http://bot.tools.svc:8080/a"}}, [], ["tools"]),
        ({"webhook": {"url": "http://bot.tools.svc.cluster.local"}}, [], ["tools"]),
        ({"webhook": SECRET}, [443], []),
        ({"webhook": SECRET | {"port": 8443}}, [8443], []),
        ({"webhook": SECRET | {"namespace": "tools"}}, [], ["tools"]),
    ],
    ids=str,
)
def test_alertmanager_reaches_its_receivers_and_nothing_else(
    given: dict[str, Any], ports: list[int], namespaces: list[str]
) -> None:
    rules = egress(receivers(given))
    if ports:
        outside, *rules = rules
        assert [peer["ipBlock"]["cidr"] for peer in outside["to"]] == OUTSIDE
        assert outside["ports"] == [{"port": port, "protocol": "TCP"} for port in ports]
    inside = [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": n}}}]} for n in namespaces]
    assert rules == inside


def test_without_receivers_nothing_is_open() -> None:
    assert egress({}) == []
    assert egress(told(egressCIDRs=["203.0.113.0/24"])) == [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]


def test_receivers_work_with_the_alertmanager_of_a_stack() -> None:
    stack = PROFILES["external"]
    values = {**stack, "monitoring": {**stack["monitoring"], **receivers({"slack": SLACK})["monitoring"]}}
    assert config(values)
    assert "NetworkPolicy/mlops-alertmanager" not in {title(m) for m in render_chart(values)}


def spec(values: dict[str, Any]) -> Manifest:
    return dict(named(render_chart(values), "Alertmanager", "mlops")["spec"])


def test_a_configuration_of_ones_own_is_what_the_receivers_are_added_to() -> None:
    values = told(config=OWN, receivers=[{"name": "r0", "slack": SLACK}])
    secret = named(render_chart(values), "Secret", "mlops-alertmanager")
    assert yaml.safe_load(secret["stringData"]["alertmanager.yaml"]) == OWN
    assert spec(values)["configSecret"] == "mlops-alertmanager"
    assert config(values)
    assert spec(told(configSecret="ours"))["configSecret"] == "ours"
    assert "configSecret" not in spec({})
    assert spec({})["alertmanagerConfigMatcherStrategy"] == {"type": "None"}


def test_the_example_of_the_docs_is_accepted() -> None:
    blocks = (ROOT / "docs/alerts.md").read_text().split("```yaml\n")[1:]
    (example,) = [yaml.safe_load(block.split("```")[0]) for block in blocks]
    names = [receiver["name"] for receiver in example["monitoring"]["alertmanager"]["receivers"]]
    for name in names:
        assert config(example, name)


@pytest.mark.parametrize("name", ["on", "yes", "null"])
def test_a_name_that_yaml_would_read_as_something_else(name: str) -> None:
    assert config(told(receivers=[{"name": name, "slack": SLACK}]), name)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "Team A"}, "/name'"),
    ({"matchers": "severity"}, "/matchers'"),
    ({"matchers": ["severity=critical"]}, "/matchers/0'"),
    ({"slak": SLACK}, "': additional properties 'slak' not allowed"),
    ({"slack": {"channel": "#ml"}}, "/slack': missing properties 'existingSecret', 'key'"),
    ({"slack": SLACK | {"url": "https://hooks.slack.com/x"}}, "/slack': additional properties 'url' not allowed"),
    ({"email": EMAIL | {"smarthost": "smtp.example.com"}}, "/email/smarthost'"),
    ({"email": EMAIL | {"to": "nobody"}}, "/email/to'"),
    ({"email": EMAIL | {"username": "x"}}, "/email': properties 'existingSecret', 'key' required"),
    ({"email": EMAIL | {"password": "x"}}, "/email': additional properties 'password' not allowed"),
    ({"webhook": {"url": "bot:8080"}}, "/webhook/url'"),
    ({"webhook": {"url": "http://bot:8080"}}, "/webhook/url'"),  # of which namespace?
    ({"webhook": {"url": "https://user:word@x.example.com"}}, "/webhook/url'"),
    ({"webhook": {"url": "https://x.example.com", "port": 1}}, "/webhook': properties 'existingSecret' required"),
    ({"webhook": {"existingSecret": "hook"}}, "/webhook': properties 'key' required"),
    ({"pagerduty": PAGERDUTY | {"severity": "bad"}}, "/pagerduty/severity'"),
]


@pytest.mark.parametrize(("given", "expected"), BAD, ids=str)
def test_a_bad_receiver_is_refused_by_name(given: dict[str, Any], expected: str) -> None:
    messages = refusals(receivers(given))["monitoring"]
    assert any(f"- at '/alertmanager/receivers/0{expected}" in message for message in messages), messages


def test_what_a_schema_cannot_say_is_said_in_words() -> None:
    assert "receivers[0] (r0) does not say how: add slack, email, webhook or pagerduty" in says(receivers({}))
    twice = told(receivers=[{"name": "a", "slack": SLACK}, {"name": "a", "slack": SLACK}])
    assert "receivers[1] (a) has the name of another receiver" in says(twice)
    for webhook in ({}, SECRET | {"url": "https://x.example.com"}):
        assert "receivers[0] (r0)" in says(receivers({"webhook": webhook}))
    assert "take one of them" in says(told(config=OWN, configSecret="ours"))
    assert "has no `receivers`" in says(told(config={"route": {"receiver": "x"}}))
    stack = PROFILES["external"]
    values = {**stack, "monitoring": {**stack["monitoring"], **told(config=OWN)["monitoring"]}}
    assert "are for the platform's own Alertmanager" in says(values)


def test_no_secret_of_a_receiver_is_in_a_manifest_in_clear() -> None:
    """There is no setting that takes one; a configuration of one's own is in a Secret and nowhere else."""
    text = rendered_text(told(config=OWN | {"global": {"smtp_auth_password": "hunter2"}}))
    assert text.count("hunter2") == 1
