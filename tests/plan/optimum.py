"""The best one-port multicast there is, by trying every one. For very few members."""

import itertools


def fewest_steps(num_sources, held, num_chunks):
    """Steps until everyone holds every chunk; `held`: what each target holds."""
    everything = frozenset(range(num_chunks))
    start = (everything,) * num_sources + tuple(map(frozenset, held))
    states, num_steps = {start}, 0
    while (everything,) * len(start) not in states:
        states = {after for state in states for after in _next_states(state)}
        num_steps += 1
    return num_steps


def _next_states(state):
    """Wherever a step can lead: one send and one receive a member, as many as can be.

    A member that could receive and does not is never better off.
    """
    choices = []
    for target, lacked in enumerate(state):
        choices.append(
            [None]
            + [
                (source, chunk)
                for source, held in enumerate(state)
                for chunk in held - lacked
                if source != target
            ]
        )
    for picks in itertools.product(*choices):
        senders = [pick[0] for pick in picks if pick]
        if len(senders) == len(set(senders)):
            yield tuple(
                held | {pick[1]} if pick else held
                for held, pick in zip(state, picks, strict=True)
            )
