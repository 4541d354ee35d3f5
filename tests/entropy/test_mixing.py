"""The quick ways of coding the symbols of a class map give what the plain ways give."""

from __future__ import annotations

import numpy as np
import pytest

from gosvae.entropy.base import FrequencyTables
from gosvae.entropy.coder import encode
from gosvae.entropy.mixing import Counters, SymbolReader, SymbolWriter, code_bit, code_bit_of_five, new_weights
from gosvae.seeding import numpy_generator


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_five_counters_learn_as_any_number_does(share: float) -> None:
    random = numpy_generator(0, "bits")
    counters, others = Counters(), Counters()
    for _ in range(12):
        assert counters.add() == others.add()
    weights, other_weights = new_weights(5), new_weights(5)
    writer, other_writer = SymbolWriter(), SymbolWriter()
    for _ in range(3000):
        chosen, bit = random.choice(12, 5, replace=False).tolist(), bool(random.random() < share)
        assert code_bit(writer, counters, chosen, weights, bit) == bit
        assert code_bit_of_five(other_writer, others, chosen, other_weights, bit) == bit
        assert weights == other_weights
    assert counters.probabilities == others.probabilities
    assert writer.finish() == other_writer.finish()


@pytest.mark.parametrize("n_values", [2, 3, 12, 256])
def test_a_small_table_has_the_weights_of_frequency_tables(n_values: int) -> None:
    random = numpy_generator(1, n_values)
    for scale in (1, 5, 10**6):
        counts = (2 + scale * random.integers(0, 100, n_values)).tolist()
        writer = SymbolWriter()
        for value in range(n_values):
            writer.weighted(counts, value)
        data = writer.finish()
        assert data == encode(np.arange(n_values), FrequencyTables(np.array([counts], np.int64)))
        reader = SymbolReader(data)
        assert [reader.weighted(counts, 0) for _ in range(n_values)] == list(range(n_values))
        assert reader.finish() == data
