"""What the broker is told beforehand, from the shell: topology, accounts, passwords."""

import base64
import hashlib
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from messaging.core.permissions import service_account
from messaging.core.topology import Declares, Names
from tests.support.installation import SUBSCRIPTIONS, Installation

RIGHTS = ("topology", "export", "--permissions", "--from", "shop:shop")


def by_user(rights: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {row["user"]: row for row in rights["permissions"]}


class TestPermissions:
    def test_the_service_and_the_account_of_the_topology(self, offline: Installation) -> None:
        rights = offline.json(*RIGHTS)

        assert [user["name"] for user in rights["users"]] == ["topology", "shop"]
        assert {user["password_hash"] for user in rights["users"]} == {""}
        assert {row["vhost"] for row in rights["permissions"]} == {"/"}
        configure = rf"^{offline.namespace}\.shop\.replies\.[0-9a-f]{{16}}$"
        assert by_user(rights)["shop"]["configure"] == configure

    def test_of_another_namespace_virtual_host_and_prefix(self, offline: Installation) -> None:
        options = ("--namespace", "prod", "--vhost", "/prod", "--user-prefix", "prod-", "--declare", "own")

        rights = offline.json(*RIGHTS, *options)

        expected = service_account(Names("prod"), "shop", SUBSCRIPTIONS, declares=Declares.OWN)
        # The module's retry policy adds rungs, which the bare subscriptions do not have.
        assert expected.configure.split("(")[0] == by_user(rights)["prod-shop"]["configure"].split("(")[0]
        assert by_user(rights)["prod-topology"]["vhost"] == "/prod"
        assert rights["vhosts"] == [{"name": "/prod"}]

    def test_operators_are_named_or_those_of_the_bundle(self, offline: Installation) -> None:
        named = offline.json(*RIGHTS, "--operator", "ops:alice")
        known = offline.json(*RIGHTS, "--trust", str(offline.keys))

        assert r"shop\.dead\.lock" in by_user(named)["ops.alice"]["configure"]
        assert r"shop\.dead\.lock" in by_user(known)["ops.dev"]["configure"]

    def test_a_bundle_narrows_what_may_be_sent(self, offline: Installation) -> None:
        rights = offline.json(*RIGHTS, "--trust", str(offline.keys))

        keys = {
            row["write"]
            for row in rights["topic_permissions"]
            if (row["user"], row["exchange"]) == ("shop", f"{offline.namespace}.commands")
        }
        assert keys == {r"^shop\..+\.v[0-9]+(?:(?:\.[01]){12})?$"}

    def test_an_operator_whom_the_bundle_grants_nothing(self, offline: Installation) -> None:
        rights = offline.json(*RIGHTS, "--trust", str(offline.keys), "--operator", "ops:eve")

        assert {by_user(rights)["ops.eve"][right] for right in ("configure", "write", "read")} == {"^$"}

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--operator", "alice"), "no operator"),
            (("--from", "shop:shop"), "two accounts would be the user 'shop'"),
            (("--topology-user", "shop"), "two accounts would be the user 'shop'"),
            (("--password-hash", "shop"), "USER=HASH"),
            (("--password-hash", "eve=abc"), "one of these users: shop, topology"),
            (("--format", "rabbitmqctl", "--password-hash", "shop=abc"), "takes no hashes"),
        ],
    )
    def test_what_makes_no_sense(self, options: tuple[str, ...], words: str, offline: Installation) -> None:
        result = offline.call(*RIGHTS, *options)

        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())


class TestPasswords:
    def test_are_made_once_kept_private_and_hashed(self, offline: Installation, tmp_path: Path) -> None:
        file = tmp_path / "passwords"

        users = offline.json(*RIGHTS, "--passwords", str(file))["users"]
        again = offline.json(*RIGHTS, "--passwords", str(file), "--operator", "ops:alice")["users"]

        assert file.stat().st_mode & 0o777 == 0o600
        passwords = dict(line.split("=", 1) for line in file.read_text().splitlines())
        assert passwords.keys() == {"topology", "shop", "ops.alice"}
        for user in users + again:
            raw = base64.b64decode(user["password_hash"])
            assert raw[4:] == hashlib.sha256(raw[:4] + passwords[user["name"]].encode()).digest()

    def test_a_hash_may_be_given(self, offline: Installation) -> None:
        users = offline.json(*RIGHTS, "--password-hash", "shop=abc=")["users"]

        assert {user["name"]: user["password_hash"] for user in users} == {"topology": "", "shop": "abc="}

    def test_reach_rabbitmqctl_through_a_pipe(self, offline: Installation, tmp_path: Path) -> None:
        file = tmp_path / "pass words"
        result = offline.call(*RIGHTS, "--format", "rabbitmqctl", "--passwords", str(file), "--operator", "ops:alice")

        assert result.exit_code == 0, result.stderr
        passwords = dict(line.split("=", 1) for line in file.read_text().splitlines())
        piped = {
            line.split()[-1]: line.partition(" | ")[0] for line in result.stdout.splitlines() if "add_user" in line
        }
        assert piped.keys() == passwords.keys()
        for user, command in piped.items():
            read = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=10, check=True)
            assert read.stdout.strip() == passwords[user]
            assert passwords[user] not in result.stdout


class TestCommands:
    def test_say_what_the_definitions_say(self, offline: Installation) -> None:
        rights = offline.json(*RIGHTS)
        lines = offline.call(*RIGHTS, "--format", "rabbitmqctl").stdout.splitlines()

        commands = [shlex.split(line) for line in lines]
        assert {command[0] for command in commands} == {"rabbitmqctl"}
        assert ["rabbitmqctl", "add_user", "shop"] in commands
        for row in rights["permissions"]:
            expected = ["set_permissions", "-p", "/", row["user"], row["configure"], row["write"], row["read"]]
            assert ["rabbitmqctl", *expected] in commands
        for row in rights["topic_permissions"]:
            expected = ["set_topic_permissions", "-p", "/", row["user"], row["exchange"], row["write"], row["read"]]
            assert ["rabbitmqctl", *expected] in commands


class TestTopology:
    def test_as_definitions(self, offline: Installation) -> None:
        found = offline.json("topology", "export", "--from", "shop:shop", "--namespace", "prod")

        assert {"prod.commands", "prod.shop.return"} <= {exchange["name"] for exchange in found["exchanges"]}
        assert all(queue["durable"] for queue in found["queues"])
        assert {"source": "prod.commands", "destination": "prod.shop.commands"}.items() <= next(
            row for row in found["bindings"] if row["routing_key"] == "shop.place_order.v1"
        ).items()

    def test_is_nothing_for_rabbitmqctl(self, offline: Installation) -> None:
        result = offline.call("topology", "export", "--from", "shop:shop", "--format", "rabbitmqctl")

        assert result.exit_code == 2
        assert "topology apply" in result.stderr

    @pytest.mark.broker
    def test_the_broker_imports_it_and_the_service_finds_it(
        self, quiet: Installation, tls_node: Any, tmp_path: Path
    ) -> None:
        file = tmp_path / "topology.json"
        file.write_text(json.dumps(quiet.json("topology", "export", "--from", "shop:shop")))

        tls_node.ctl("import_definitions", str(file))

        applied = quiet.call("topology", "apply", "shop:shop", changes={"MESSAGING_BROKER_URL": tls_node.url})
        assert applied.exit_code == 0, applied.stderr
