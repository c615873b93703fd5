"""`jscale-generate PROMPT`: streams the text that follows a prompt."""

import time

from absl import flags

from jscale.core.errors import ConfigError
from jscale.launch import mains
from jscale.server.client import Client


def define_flags() -> None:
    """Where the gateway is, and how tokens are chosen."""
    flags.DEFINE_string(
        "address", "127.0.0.1:8480", "HOST:PORT of a gateway, or several: A,B."
    )
    flags.DEFINE_integer("max_tokens", 128, "Tokens at most: a paragraph or two.")
    flags.DEFINE_float("temperature", 0.0, "0: the most likely token each time.")
    flags.DEFINE_integer("top_k", 0, "Sample among so many most likely; 0: all.")
    flags.DEFINE_float("top_p", 1.0, "Sample among those of this probability; 1: all.")
    flags.DEFINE_integer("seed", 0, "The same seed gives the same text.")
    flags.DEFINE_boolean("ignore_eos", False, "Go on after the end of the text.")
    flags.DEFINE_boolean("show_speed", True, "Say how fast it was, at the end.")


def main(arguments: list[str]) -> None:
    """Prints the prompt and what follows."""
    if len(arguments) != 1:
        raise ConfigError(
            f"{len(arguments)} prompts given: put the prompt in quotation marks"
        )
    values = flags.FLAGS
    with Client(values.address) as client:
        tokens = client.generate(
            arguments[0],
            max_tokens=values.max_tokens,
            temperature=values.temperature,
            top_k=values.top_k,
            top_p=values.top_p,
            seed=values.seed,
            ignore_eos=values.ignore_eos,
        )
        started_ns, first_ns, count = time.monotonic_ns(), 0, 0
        for token in tokens:
            if not count:
                first_ns = time.monotonic_ns() - started_ns
                print(arguments[0], end="")
            count += 1
            print(token.text, end="", flush=True)
    took_s = (time.monotonic_ns() - started_ns) / 1e9
    print()
    if values.show_speed:
        print(
            f"[{count} tokens, {tokens.finish_reason}; the first after "
            f"{first_ns / 1e6:.0f} ms, {count / took_s:.0f} tokens/s]"
        )


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
