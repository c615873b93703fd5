"""Every field of a config has its flag, that says what it is."""

import dataclasses

import pytest
from absl import flags

from jscale.cluster.config import ManagerConfig, WorkerConfig
from jscale.launch import (
    convert,
    demo,
    doctor,
    gateway,
    generate,
    manager,
    scale,
    serve,
    worker,
)
from jscale.server.child_process import FLAG_OF_FIELD
from jscale.server.demo import DemoConfig
from jscale.server.gateway_config import GatewayConfig
from jscale.server.local_cluster_config import LocalClusterConfig

COMMANDS = (convert, demo, doctor, gateway, generate, manager, scale, serve, worker)
CONFIGS = {
    manager: ManagerConfig,
    worker: WorkerConfig,
    gateway: GatewayConfig,
    demo: DemoConfig,
    serve: LocalClusterConfig,
}
NOT_FLAGS = {"cluster_token", "address"}
"""One goes by a file; the other is made of --host and --port."""


@pytest.fixture
def defined(monkeypatch):
    """The flags that a command defines, each command on a clean slate."""

    def define(command):
        fresh = flags.FlagValues()
        for name in ("string", "integer", "float", "boolean", "enum"):
            original = getattr(flags, f"DEFINE_{name}")

            def into(*arguments, original=original, **named):
                return original(*arguments, flag_values=fresh, **named)

            monkeypatch.setattr(flags, f"DEFINE_{name}", into)
        monkeypatch.setattr(flags, "FLAGS", fresh)
        command.define_flags()
        monkeypatch.undo()
        return fresh

    return define


@pytest.mark.parametrize("command", CONFIGS, ids=lambda command: command.__name__)
def test_every_field_of_a_config_has_its_flag(defined, command):
    values = defined(command)
    config = CONFIGS[command]
    for field in dataclasses.fields(config):
        if field.name in NOT_FLAGS:
            continue
        name = FLAG_OF_FIELD.get(field.name, field.name)
        assert name in values, f"{config.__name__}.{field.name} has no --{name}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_flag_says_what_it_is(defined, command):
    values = defined(command)
    for name in values:
        text = values[name].help
        assert len(text) > 15, name
        assert text.rstrip().endswith((".", ")")), name
    assert command.__doc__.startswith("`")
