"""What every command shares: flags become a config, errors become one line."""

import dataclasses
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from absl import app, flags, logging

from jscale.core.errors import ConfigError, JscaleError
from jscale.server.child_process import FLAG_OF_FIELD

USER_ERROR_EXIT_CODE = 2

Config = TypeVar("Config")


def run(define_flags: Callable[[], None], main: Callable[[list[str]], None]) -> None:
    """Runs a command: a user's mistake is one line on stderr, without a trace.

    `main` gets what is given beside the flags.
    """
    define_flags()
    flags.DEFINE_boolean(
        "supervised", False, "End when standard input closes: whoever started it died."
    )
    logging.set_verbosity(logging.INFO)

    def guarded(arguments: list[str]) -> None:
        try:
            if flags.FLAGS.supervised:
                threading.Thread(target=_end_with_stdin, daemon=True).start()
            main(arguments[1:])
        except JscaleError as error:
            print(f"{pathlib.Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
            sys.exit(USER_ERROR_EXIT_CODE)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    app.run(guarded)


def expect_no_arguments(arguments: list[str]) -> None:
    """Returns if nothing is given beside the flags.

    Raises:
      ConfigError: something is, mostly a flag without its dashes.
    """
    if arguments:
        raise ConfigError(f"{arguments[0]!r} is no flag: see --help")


def config_from_flags(config_type: type[Config], **given: Any) -> Config:
    """The config whose fields are `given`, or else the flags of the same name."""
    values = dict(given)
    for field in dataclasses.fields(config_type):  # type: ignore[arg-type]
        if field.name not in values:
            name = FLAG_OF_FIELD.get(field.name, field.name)
            values[field.name] = flags.FLAGS[name].value
    return config_type(**values)


def _end_with_stdin() -> None:
    """Ends the process at once when whoever holds the other end is gone."""
    while os.read(0, 4096):
        pass
    os._exit(1)
