"""Adaptive coding of binary decisions: several predictions of one bit are mixed, and learn from it, in integers.

The method is that of the context mixing compressors (Mahoney 2005, "Adaptive weighing of context models for lossless
data compression", FIT technical report CS-2005-16): each context has a counter with the probability of a one, the
logits of the counters are added with weights, and weights and counters learn from every bit. Probabilities have 16
fractional bits, logits 8 and weights 16; the only floats are the probabilities in the last step, a division by 2**16.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from operator import mul, sub
from typing import Any, Protocol

import constriction
import numpy as np

from gosvae.entropy.base import TABLE_BITS
from gosvae.entropy.coder import finished_bytes

_PROBABILITY_BITS = 16
_LOGIT_BITS = 8
_MAX_LOGIT = 12 << _LOGIT_BITS
_LIMIT = 255
"""Largest count of bits of a counter; the limit keeps counters learning."""
_STEP_OF_COUNT = [2 * 65536 // (2 * count + 3) for count in range(_LIMIT + 1)]
"""Step of a counter by its count of bits, in 1/65536: about 1 / (count + 1.5)."""
_TRUST_OF_COUNT = [0, 1, *[2] * 4, *[3] * (_LIMIT - 5)]
"""Factor of a counter's logit by its count of bits, in halves; a counter without any bits has the factor 0."""

Stage = list[Any]
"""Factor of the logit, step, and next stage of the counters with the same count of bits."""
Weights = list[int]
"""Weights of the counters of a decision, in 1/65536."""


def _first_stage() -> Stage:
    """Return the stage of a counter that has seen no bit; the last stage is its own next one."""
    stages: list[Stage] = [[trust, step] for trust, step in zip(_TRUST_OF_COUNT, _STEP_OF_COUNT, strict=True)]
    for stage, following in zip(stages, [*stages[1:], stages[-1]], strict=True):
        stage.append(following)
    return stages[0]


_FIRST_STAGE = _first_stage()


class Counters:
    """Counters by their numbers, each the state of one context.

    The state is in two lists, and not in an object for each counter: the garbage collector would look through all of
    those again and again.

    Attributes:
        probabilities: probability of a one of each counter, in 1/65536.
        stages: stage of each counter, which stands for its count of bits.
    """

    def __init__(self) -> None:
        self.probabilities: list[int] = []
        self.stages: list[Stage] = []

    def __len__(self) -> int:
        return len(self.stages)

    def add(self) -> int:
        """Add a counter that has seen no bit, and return its number."""
        self.probabilities.append(1 << (_PROBABILITY_BITS - 1))
        self.stages.append(_FIRST_STAGE)
        return len(self.stages) - 1


def new_weights(n_counters: int) -> Weights:
    """Return initial weights, which give somewhat more than the mean of the logits."""
    return [65536 // max(n_counters, 1)] * n_counters


def _probability_of_logit() -> list[int]:
    """Return 1 / (1 + exp(-logit)) in 1/65536, from 1 to 65535, for logits from -12 to 12 in steps of 1/256."""
    # exp(1 / 256) from its series in fixed point: the same integers on every machine.
    one = 1 << 128
    base, term = 0, one
    for order in range(1, 30):
        base += term
        term //= order << _LOGIT_BITS
    table, power = [], one
    for _ in range(_MAX_LOGIT + 1):
        table.append(min(65535, (power << _PROBABILITY_BITS) // (one + power)))
        power = power * base // one
    return [65536 - p for p in reversed(table[1:])] + table


def _logit_of_probability(table: list[int]) -> list[int]:
    """Return the inverse of `_probability_of_logit` for probabilities in 1/4096, from 1 to 4095 (0 counts as 1)."""
    logits = [bisect_right(table, p << (_PROBABILITY_BITS - 12)) - 1 - _MAX_LOGIT for p in range(4096)]
    return [logits[1], *logits[1:]]


_PROBABILITIES = _probability_of_logit()
_LOGITS = _logit_of_probability(_PROBABILITIES)


class SymbolCoder(Protocol):
    """A writer or a reader of one range-coded stream; both go through the same decisions in the same order.

    A writer codes the value that it is given; a reader ignores it. Both return the value in the stream.
    """

    def bit(self, probability: int, value: bool) -> bool:
        """Code a bit that is one with the probability `probability` / 65536; `probability` is in 1..65535."""

    def uniform(self, n_values: int, value: int) -> int:
        """Code a number in [0, n_values), all of which are equally probable."""

    def weighted(self, counts: Sequence[int], value: int) -> int:
        """Code an index into `counts`, whose probability is in proportion to its count of at least 1."""


_BITS_AT_ONCE = 64
"""Number of bits that are written at once, since a call of the coder takes as long as many bits."""
_FEW_BITS = 16
"""Number of bits below which it is quicker to write them one by one."""
_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)
"""Model of constriction that takes a probability for each bit."""
_MODELS: list[Any] = [None] * 2**_PROBABILITY_BITS
"""Models of constriction by the probability of a one in 1/65536; each is made when it is first needed."""


def _model_of(probability: int) -> Any:
    """Return the model of a bit that is one with this probability, in 1/65536."""
    model = _MODELS[probability]
    if model is None:
        model = _MODELS[probability] = constriction.stream.model.Bernoulli(probability / 65536, perfect=False)
    return model


class SymbolWriter:
    """Writer of a stream, see `SymbolCoder`.

    Attributes:
        waiting, probabilities: bits that are not written yet, and the probabilities of a one in 1/65536.
    """

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self.waiting: list[int] = []
        self.probabilities: list[int] = []

    def bit(self, probability: int, value: bool) -> bool:
        self.waiting.append(value)
        self.probabilities.append(probability)
        if len(self.waiting) == _BITS_AT_ONCE:
            self.write_bits()
        return value

    def uniform(self, n_values: int, value: int) -> int:
        if n_values > 1:
            self.write(value, constriction.stream.model.Uniform(n_values))
        return value

    def weighted(self, counts: Sequence[int], value: int) -> int:
        if len(counts) > 1:
            self.write(value, _categorical(counts))
        return value

    def write(self, value: int, model: Any) -> None:
        """Write the bits that wait, and a value under a model of constriction."""
        self.write_bits()
        self._encoder.encode(value, model)

    def write_bits(self) -> None:
        """Write the bits that wait. A probability is a multiple of 2**-16, so that floats are exact."""
        if len(self.waiting) < _FEW_BITS:
            for bit, probability in zip(self.waiting, self.probabilities, strict=True):
                self._encoder.encode(int(bit), _model_of(probability))
        else:
            probabilities = np.array(self.probabilities, np.float64) * 2.0**-_PROBABILITY_BITS
            self._encoder.encode(np.array(self.waiting, np.int32), _BERNOULLI, probabilities)
        self.waiting.clear()
        self.probabilities.clear()

    @property
    def least_bytes(self) -> int:
        """Number of bytes that the stream exceeds, whatever is written next."""
        return 4 * int(self._encoder.pos()[0])

    def finish(self) -> bytes:
        """Return the bytes of the stream."""
        self.write_bits()
        return finished_bytes(self._encoder)


class SymbolReader:
    """Reader of a stream, which it also writes again, so that a caller can compare the bytes.

    Bytes that no writer makes give arbitrary values, or an AssertionError: constriction refuses them, or they are used
    up.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self._writer = SymbolWriter()
        self._bits, self._probabilities = self._writer.waiting, self._writer.probabilities
        self._n_bytes = len(data)

    def bit(self, probability: int, value: bool) -> bool:
        del value
        # Written out, since this is the innermost loop of a map.
        model = _MODELS[probability]
        if model is None:
            model = _model_of(probability)
        bit: int = self._decoder.decode(model)
        self._bits.append(bit)
        self._probabilities.append(probability)
        if len(self._bits) == _BITS_AT_ONCE:
            self._writer.write_bits()
            self._check()
        return bit == 1

    def uniform(self, n_values: int, value: int) -> int:
        del value
        return self._read(constriction.stream.model.Uniform(n_values)) if n_values > 1 else 0

    def weighted(self, counts: Sequence[int], value: int) -> int:
        del value
        return self._read(_categorical(counts)) if len(counts) > 1 else 0

    def _read(self, model: Any) -> int:
        self._check()
        value = int(self._decoder.decode(model))
        self._writer.write(value, model)
        return value

    def _check(self) -> None:
        if self._writer.least_bytes > self._n_bytes:
            raise AssertionError  # everything further would be decoded from the zeros after the end

    def finish(self) -> bytes:
        """Return the bytes that a writer makes of the symbols."""
        return self._writer.finish()


def _categorical(counts: Sequence[int]) -> Any:
    """Return the model of constriction with the weights of `FrequencyTables`, in a quicker way for one small table."""
    scale = (1 << TABLE_BITS) - len(counts)
    sums = list(accumulate(counts))
    total = sums[-1]
    edges = [each * scale // total for each in sums]
    weights = np.array([edges[0], *map(sub, edges[1:], edges)], np.float64)
    return constriction.stream.model.Categorical(weights, perfect=False)


def code_bit(coder: SymbolCoder, counters: Counters, chosen: Sequence[int], weights: Weights, value: bool) -> bool:
    """Code and return one bit: mix the chosen counters, code the bit, and let counters and weights learn from it.

    A counter that occurs twice learns twice.
    """
    probabilities, stages = counters.probabilities, counters.stages
    logits = [_LOGITS[probabilities[number] >> 4] * stages[number][0] for number in chosen]
    mixed = sum(map(mul, weights, logits)) >> 17  # 16 bits of the weights, 1 of the halves of trust
    if mixed > _MAX_LOGIT:
        mixed = _MAX_LOGIT
    elif mixed < -_MAX_LOGIT:
        mixed = -_MAX_LOGIT
    probability = _PROBABILITIES[mixed + _MAX_LOGIT]
    bit = coder.bit(probability, value)
    target = 65536 if bit else 0
    for number in chosen:
        old, (_, step, stages[number]) = probabilities[number], stages[number]
        probabilities[number] = old + ((target - old) * step >> 16)  # below 65536, since the step is
    error = target - probability
    # A learning rate of 1/256.
    weights[:] = [weight + ((error * logit + 65536) >> 17) for weight, logit in zip(weights, logits, strict=True)]
    return bit


def code_bit_of_five(
    coder: SymbolCoder, counters: Counters, chosen: Sequence[int], weights: Weights, value: bool
) -> bool:
    """Code and return one bit as `code_bit` does with five different counters, but quicker."""
    probabilities, stages, logits = counters.probabilities, counters.stages, _LOGITS
    number_0, number_1, number_2, number_3, number_4 = chosen
    weight_0, weight_1, weight_2, weight_3, weight_4 = weights
    old_0, old_1, old_2 = probabilities[number_0], probabilities[number_1], probabilities[number_2]
    old_3, old_4 = probabilities[number_3], probabilities[number_4]
    trust_0, step_0, stages[number_0] = stages[number_0]
    trust_1, step_1, stages[number_1] = stages[number_1]
    trust_2, step_2, stages[number_2] = stages[number_2]
    trust_3, step_3, stages[number_3] = stages[number_3]
    trust_4, step_4, stages[number_4] = stages[number_4]
    logit_0 = logits[old_0 >> 4] * trust_0
    logit_1 = logits[old_1 >> 4] * trust_1
    logit_2 = logits[old_2 >> 4] * trust_2
    logit_3 = logits[old_3 >> 4] * trust_3
    logit_4 = logits[old_4 >> 4] * trust_4
    mixed = (
        weight_0 * logit_0 + weight_1 * logit_1 + weight_2 * logit_2 + weight_3 * logit_3 + weight_4 * logit_4
    ) >> 17
    if mixed > _MAX_LOGIT:
        mixed = _MAX_LOGIT
    elif mixed < -_MAX_LOGIT:
        mixed = -_MAX_LOGIT
    probability = _PROBABILITIES[mixed + _MAX_LOGIT]
    bit = coder.bit(probability, value)
    target = 65536 if bit else 0
    error = target - probability
    probabilities[number_0] = old_0 + ((target - old_0) * step_0 >> 16)
    probabilities[number_1] = old_1 + ((target - old_1) * step_1 >> 16)
    probabilities[number_2] = old_2 + ((target - old_2) * step_2 >> 16)
    probabilities[number_3] = old_3 + ((target - old_3) * step_3 >> 16)
    probabilities[number_4] = old_4 + ((target - old_4) * step_4 >> 16)
    weights[:] = (
        weight_0 + ((error * logit_0 + 65536) >> 17),
        weight_1 + ((error * logit_1 + 65536) >> 17),
        weight_2 + ((error * logit_2 + 65536) >> 17),
        weight_3 + ((error * logit_3 + 65536) >> 17),
        weight_4 + ((error * logit_4 + 65536) >> 17),
    )
    return bit
