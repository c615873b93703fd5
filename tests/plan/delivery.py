"""Plans carried out step by step; an assertion fails where one breaks a promise."""


def deliver(plan, targets=()):
    """Delivers chunk after chunk; the steps until `targets` together hold every one."""
    held = [set(range(plan.num_chunks)) for _ in plan.sources]
    held += [set() for _ in plan.targets]
    members = range(plan.num_members)
    together = None
    sends, receives = [[] for _ in members], [[] for _ in members]
    for step in range(plan.num_steps):
        sent, received = {}, {}
        for index in members:
            if (out := plan.outgoing_at(index, step)) is not None:
                target, chunk = out
                assert target not in sent, f"step {step}: two send to {target}"
                assert chunk in held[index], f"step {step}: {index} lacks {chunk}"
                sent[target] = (index, chunk)
                sends[index].append((step, *out))
            if (incoming := plan.incoming_at(index, step)) is not None:
                received[index] = incoming
                receives[index].append((step, *incoming))
        assert sent == received, f"step {step}: sends and receives differ"
        for target, (_, chunk) in sent.items():
            assert chunk not in held[target], f"step {step}: {target} had {chunk}"
            held[target].add(chunk)
        if together is None and targets:
            union = set().union(*(held[index] for index in targets))
            together = step + 1 if len(union) == plan.num_chunks else None
    assert all(len(chunks) == plan.num_chunks for chunks in held), "a chunk is missing"
    assert sends == [list(plan.sends_of(index)) for index in members]
    assert receives == [list(plan.receives_of(index)) for index in members]
    for step in (-1, plan.num_steps, plan.num_steps + 7):
        assert all(plan.outgoing_at(index, step) is None for index in members)
        assert all(plan.incoming_at(index, step) is None for index in members)
    return together
