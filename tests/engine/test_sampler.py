"""The sampler against the distributions it promises, row by row."""

import functools

import jax
import numpy as np
import pytest

from jscale.engine.sampler import sample

VOCAB = 50
ROWS = 16


@functools.cache
def compiled():
    def call(logits, fields):
        return sample(logits, **fields)

    return jax.jit(call)


def run(logits, **changes):
    rows = len(logits)
    fields = {
        "temperature": np.zeros(rows, np.float32),
        "top_k": np.zeros(rows, np.int32),
        "top_p": np.ones(rows, np.float32),
        "seed": np.zeros(rows, np.uint32),
        "position": np.arange(rows, dtype=np.int32),
        "sampled": np.ones(rows, bool),
    }
    for name, value in changes.items():
        fields[name] = np.broadcast_to(value, rows).astype(fields[name].dtype)
    tokens, logprobs = compiled()(np.asarray(logits, np.float32), fields)
    return np.asarray(tokens), np.asarray(logprobs)


def random_logits(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, VOCAB)).astype(np.float32) * 2


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def draws(logits, count=4096, **changes):
    """Many draws from one row of logits, each at another position."""
    return run(np.tile(logits, (count, 1)), **changes)[0]


def test_temperature_zero_takes_the_best_and_the_first_of_equals():
    logits = random_logits()
    logits[3, [7, 20]] = 50.0
    tokens, _ = run(logits, seed=9)
    np.testing.assert_array_equal(tokens, logits.argmax(axis=-1))
    assert tokens[3] == 7


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logprobs_are_those_of_the_plain_distribution(temperature):
    logits = random_logits()
    tokens, logprobs = run(logits, temperature=temperature, top_k=3)
    wanted = log_softmax(logits)[np.arange(ROWS), tokens]
    np.testing.assert_allclose(logprobs, wanted, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature):
    logits = random_logits(1)[0]
    counts = np.bincount(draws(logits, temperature=temperature), minlength=VOCAB)
    wanted = np.exp(log_softmax(logits / temperature))
    # 4 standard deviations of a count, and 5 for the rarest.
    assert np.all(np.abs(counts - 4096 * wanted) <= 4 * np.sqrt(4096 * wanted) + 5)


@pytest.mark.parametrize("top_k", [1, 2, 7, VOCAB, VOCAB + 1, 2**31 - 1])
def test_top_k_lets_in_the_best_k(top_k):
    logits = random_logits(1)[0]
    drawn = set(draws(logits, temperature=3.0, top_k=top_k).tolist())
    best = np.argsort(-logits)[:top_k]
    assert drawn <= set(best.tolist())
    assert len(drawn) >= min(top_k, VOCAB) * 0.9


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.6, 0.95])
def test_top_p_lets_in_the_smallest_set_that_reaches_it(top_p):
    logits = random_logits(1)[0]
    order = np.argsort(-logits)
    mass = np.cumsum(np.exp(log_softmax(logits))[order])
    num_in = int(np.searchsorted(mass, top_p)) + 1
    drawn = set(draws(logits, temperature=1.0, top_p=top_p).tolist())
    assert drawn <= set(order[:num_in].tolist())
    assert len(drawn) >= num_in * 0.6


def test_top_p_counts_within_top_k():
    """Of four equal tokens two are let in by top_k=2, and half of them by top_p."""
    logits = np.full(VOCAB, -30.0, np.float32)
    logits[[4, 8, 15, 16]] = [3.0, 2.9, 2.8, 2.7]
    assert set(draws(logits, temperature=1.0, top_k=2, top_p=0.5)) == {4}
    assert set(draws(logits, temperature=1.0, top_k=2, top_p=0.6)) == {4, 8}


def test_tokens_that_tie_with_the_last_are_let_in():
    logits = np.full(VOCAB, -30.0, np.float32)
    logits[[4, 8, 15]] = 1.0
    assert set(draws(logits, temperature=1.0, top_k=1)) == {4, 8, 15}


def test_top_p_one_lets_all_in():
    logits = np.zeros(VOCAB, np.float32)
    assert len(set(draws(logits, temperature=1.0, top_p=1.0))) == VOCAB


@pytest.mark.parametrize("temperature", [1e-30, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature):
    logits = random_logits()
    tokens, _ = run(logits, temperature=temperature)
    np.testing.assert_array_equal(tokens, logits.argmax(axis=-1))


def test_a_token_depends_on_its_own_row_alone():
    """The same row anywhere in a tile, beside any others, gives the same bits."""
    logits, others = random_logits(1, seed=1)[0], random_logits(seed=2)
    results = set()
    for row in range(ROWS):
        mixed = others.copy()
        mixed[row] = logits
        temperature = np.linspace(0, 2, ROWS)
        temperature[row] = 1.1
        seed, position = np.arange(ROWS) + 40, np.arange(ROWS)
        seed[row], position[row] = 2**32 - 5, 77
        top_k, top_p = np.arange(ROWS), np.linspace(0.1, 1, ROWS)
        top_k[row], top_p[row] = 30, 0.9
        tokens, logprobs = run(
            mixed,
            temperature=temperature,
            seed=seed,
            position=position,
            top_k=top_k,
            top_p=top_p,
        )
        results.add((int(tokens[row]), float(logprobs[row])))
    assert len(results) == 1


def test_seed_and_position_both_decide_the_draw():
    logits = np.zeros((ROWS, VOCAB), np.float32)
    same = {"temperature": 1.0, "position": 3}
    assert len(set(run(logits, seed=5, **same)[0])) == 1
    assert len(set(run(logits, seed=np.arange(ROWS), **same)[0])) > ROWS // 2
    assert len(set(run(logits, temperature=1.0, seed=5)[0])) > ROWS // 2


def test_a_greedy_row_stays_greedy_beside_drawn_ones():
    logits = random_logits()
    temperature = np.where(np.arange(ROWS) % 2, 5.0, 0.0)
    tokens, _ = run(logits, temperature=temperature)
    np.testing.assert_array_equal(tokens[::2], logits.argmax(axis=-1)[::2])
    assert np.any(tokens[1::2] != logits.argmax(axis=-1)[1::2])
