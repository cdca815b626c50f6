"""A decoding step of packed weights on a CPU as one compiled function: body, heads and draws of all rows.

Written out because a step at the embedded sizes is a few hundred operations of some microseconds each, of which
starting them takes most. Shapes: D the body's width, H its heads, W = D / H, F its feed-forward width, P positions, C
places of the cache, E the depth head's width, V_l a level's vocabulary, N rows of this step, B slots.

Sums of products are exact, and so the same on every processor: a row's activations are rounded to 16-bit integers with
one scale, weights are int8, sums over up to SLICE columns int32. All else is float32, in the order and by the
instructions that suit the processor's vectors: another kind of processor may round it otherwise. On one processor a row
has the same bits alone and beside others, since each is worked out for itself.

Weights lie in two arrays in the order in which a step reads them, matrices in `values`, the rest in `reals` (see
`packed_weights`): memory is then read straight on, which is what makes it fast.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic
from torch import Tensor

from audiolm.lm.steps import StepModel
from audiolm.nn.cache import LARGEST_FLOAT16
from audiolm.nn.packing import PackedMatrix

LARGEST_INTEGER = 32767.0
LARGEST_SUM = 2.0**31 / 127 * 0.999  # of a row's absolute integers, so that no product overflows
NORM_EPSILON = 1e-5
LARGEST_UNIFORM = np.float32(1 - 1e-6)
CACHED_BYTES = 16384  # of weights that all rows are multiplied with before the next ones are read
CHUNK = 32  # ids whose shares are added up before the one that is drawn is looked for among them
SLICE = 1024  # columns that rows are multiplied with before the next ones: theirs stay in the cache nearest by


FEATURES = get_host_cpu_features() if numba.config.CPU_FEATURES is None else numba.config.CPU_FEATURES
"""What numba compiles for, as LLVM writes it."""
LANES = 16 if "+avx512bw" in FEATURES else 8  # 32-bit numbers in a vector, which LLVM splits if need be
HAS_FLOAT16 = "+f16c" in FEATURES or platform.machine().lower() in ("aarch64", "arm64")
KEPT_AS = torch.float16 if HAS_FLOAT16 else torch.float32  # keys and values
NUMBER = ir.IntType(32)
PLACES = 8  # of the cache that are looked at side by side, and divide what it is allotted in

OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
AS_WRITTEN = ("nsz",)  # of what one row and four must round alike; numba would add the flags above where there are none
inner = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)


class Weights(NamedTuple):
    values: np.ndarray  # int8: a block's qkv, out, feed_in, feed_out; state; a level's expand, contract, output
    reals: np.ndarray  # float32: norms, biases and, after each matrix's place in the order, its steps
    inputs: np.ndarray  # [sum of V + 2, D]
    lower: np.ndarray  # [sum of V_l but the last, E]
    sizes: np.ndarray  # int64 [L], the V_l
    body_values: int  # how many of `values` are the body's
    body_reals: int
    feed_forward: int
    num_heads: int


class Slots(NamedTuple):
    """What is kept of all slots."""

    cosines: np.ndarray  # [P, W / 2]
    sines: np.ndarray
    cache: np.ndarray  # [layers, 2, B, C, D], keys and values: KEPT_AS, float16 as int16 of the same bits
    ids: np.ndarray  # int64 [B, L], of `inputs`
    states: np.ndarray  # [B, D]
    known: np.ndarray  # [B, steps, D], or of no step
    uniforms: np.ndarray  # [B, steps of a block, L]
    settings: np.ndarray  # [B, 3]: 1 / temperature, 0 where the likeliest is taken; top k; top p
    logits: np.ndarray  # [L, B, most V]: of a step's rows, in their order
    window: int


@intrinsic
def _bits(typing_context, value):
    """float32 -> its bits as int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _from_bits(typing_context, value):
    """int32 -> the float32 of these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


def _given(context, builder, signature, arguments):
    """An intrinsic's arguments, arrays with their parts by name."""
    for kind, each in zip(signature.args, arguments, strict=True):
        yield context.make_array(kind)(context, builder, value=each) if isinstance(kind, types.Array) else each


def _vector_at(builder, array, index, length):
    """A pointer to `length` numbers of an array, from the one at `index` of all on."""
    place = builder.gep(array.data, [index])
    return builder.bitcast(place, ir.VectorType(place.type.pointee, length).as_pointer())


def _index(builder, array, row, column):
    """Where an element of an array [N, D] lies among all."""
    return builder.add(builder.mul(builder.extract_value(array.shape, 1), row), column)


def _following(builder, first, count):
    """`count` numbers from `first` on."""
    return [builder.add(first, first.type(each)) for each in range(count)]


def _repeated(builder, array, index, length):
    """A vector of one number of an array, over and over."""
    found = builder.load(_vector_at(builder, array, index, 1), align=4)
    return builder.shuffle_vector(found, found, ir.Constant(ir.VectorType(NUMBER, length), None))


def _sum(builder, first, second):
    return (builder.fadd if isinstance(first.type.element, ir.FloatType) else builder.add)(first, second)


def _chosen(builder, first, second, places):
    mask = ir.Constant(ir.VectorType(NUMBER, len(places)), places)
    return builder.shuffle_vector(first, second, mask)


def _halves_added(builder, vector):
    """A vector -> one of half its length, the sums of neighbours."""
    evens, odds = (_chosen(builder, vector, vector, list(range(odd, vector.type.count, 2))) for odd in (0, 1))
    return _sum(builder, evens, odds)


def _pairs_added(builder, first, second):
    """Two vectors -> one: of every four numbers, the sums of two pairs in the first and of two in the second."""
    count = first.type.count
    evens, odds = (
        [start + each + odd for start in range(0, count, 4) for each in (0, 2, count, count + 2)] for odd in (0, 1)
    )
    return _sum(builder, *(_chosen(builder, first, second, places) for places in (evens, odds)))


def _four_sums(builder, vectors):
    """Four vectors -> one of their sums."""
    found = _pairs_added(builder, *(_pairs_added(builder, *pair) for pair in (vectors[:2], vectors[2:])))
    while (count := found.type.count) > 4:
        found = _sum(builder, *(_chosen(builder, found, found, list(half)) for half in np.split(np.arange(count), 2)))
    return found


@intrinsic
def _kept(typing_context, array, value):
    """float32 -> what an array of keys or values keeps of it: itself, or as int16 the bits of the nearest float16."""

    def generate(context, builder, signature, arguments):
        if signature.return_type == types.float32:
            return arguments[1]
        return builder.bitcast(builder.fptrunc(arguments[1], ir.HalfType()), ir.IntType(16))

    return array.dtype(array, types.float32), generate


@intrinsic
def _real(typing_context, value):
    """What `_kept` gives -> float32."""

    def generate(context, builder, signature, arguments):
        if signature.args[0] == types.float32:
            return arguments[0]
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(value), generate


def _reals_at(builder, array, index):
    """LANES numbers of keys or values, as float32."""
    found, reals = builder.load(_vector_at(builder, array, index, LANES), align=2), ir.FloatType()
    if found.type.element == reals:
        return found
    halves = builder.bitcast(found, ir.VectorType(ir.HalfType(), LANES))
    return builder.fpext(halves, ir.VectorType(reals, LANES))


def _products_of(rows):
    """A function that adds to out[row : row + rows, output : output + 4] the products of x [N, K] int16, of its columns
    `first` to `last`, times `scales` [N], and the four outputs that lie at values[at], times their `steps`.

    As vectors of products whose neighbours are added: what processors have an instruction for (vpdpwssd, vpmaddwd),
    and what LLVM does not find in a loop over numbers.
    """
    wide, sums = ir.VectorType(NUMBER, 2 * LANES), ir.VectorType(NUMBER, LANES)

    def widened(builder, array, index):
        return builder.sext(builder.load(_vector_at(builder, array, index, 2 * LANES), align=1), wide)

    def totals_of(builder, values, at, x, rows_here, first, last):
        """Four vectors a row, whose numbers add up to its products."""
        size = at.type
        totals = [cgutils.alloca_once_value(builder, ir.Constant(sums, None)) for _ in range(4 * rows)]
        with cgutils.for_range_slice(builder, first, last, size(2 * LANES), size) as (index, _):
            own = [widened(builder, x, _index(builder, x, each, index)) for each in rows_here]
            place = builder.add(at, builder.mul(builder.sub(index, first), size(4)))
            for each in range(4):
                weight = widened(builder, values, builder.add(place, size(2 * LANES * each)))
                for total, other in zip(totals[each::4], own, strict=True):
                    products = _halves_added(builder, builder.mul(weight, other))
                    builder.store(builder.add(builder.load(total), products), total)
        return [builder.load(total) for total in totals]

    def generate(context, builder, signature, arguments):
        values, at, x, scales, steps, out, row, output, first, last = _given(context, builder, signature, arguments)
        rows_here = _following(builder, row, rows)
        totals = totals_of(builder, values, at, x, rows_here, first, last)
        four_steps = builder.load(_vector_at(builder, steps, output, 4), align=4)
        for each, here in enumerate(rows_here):
            exact = _four_sums(builder, totals[4 * each : 4 * each + 4])
            scaled = builder.fmul(_repeated(builder, scales, here, 4), four_steps, flags=AS_WRITTEN)
            product = builder.fmul(builder.sitofp(exact, four_steps.type), scaled, flags=AS_WRITTEN)
            place = _vector_at(builder, out, _index(builder, out, here, output), 4)
            total = builder.fadd(builder.load(place, align=4), product, flags=AS_WRITTEN)
            builder.store(total, place, align=4)
        return context.get_dummy_value()

    @intrinsic
    def multiply_rows(typing_context, values, at, x, scales, steps, out, row, output, first, last):
        return types.void(values, types.intp, x, scales, steps, out, *[types.intp] * 4), generate

    return multiply_rows


_multiply_one, _multiply_two, _multiply_four = _products_of(1), _products_of(2), _products_of(4)


def _added_product(builder, total, first, second):
    flags = ("contract",)
    return builder.fadd(total, builder.fmul(first, second, flags=flags), flags=flags)


@intrinsic
def _score_vectors(typing_context, queries, keys, scores, head, place, start, end):
    """scores[head, place : place + PLACES] of queries [D] and keys [C, D], of their columns `start` to `end`."""

    def generate(context, builder, signature, arguments):
        queries, keys, scores, head, place, start, end = _given(context, builder, signature, arguments)
        size, seen = place.type, _following(builder, place, PLACES)
        nothing = ir.Constant(ir.VectorType(ir.FloatType(), LANES), None)
        totals = [cgutils.alloca_once_value(builder, nothing) for _ in seen]
        with cgutils.for_range_slice(builder, start, end, size(LANES), size) as (index, _):
            query = builder.load(_vector_at(builder, queries, index, LANES), align=4)
            for total, each in zip(totals, seen, strict=True):
                key = _reals_at(builder, keys, _index(builder, keys, each, index))
                builder.store(_added_product(builder, builder.load(total), query, key), total)
        for four in range(0, PLACES, 4):
            found = _four_sums(builder, [builder.load(total) for total in totals[four : four + 4]])
            target = _vector_at(builder, scores, _index(builder, scores, head, seen[four]), 4)
            builder.store(found, target, align=4)
        return context.get_dummy_value()

    return types.void(queries, keys, scores, *[types.intp] * 4), generate


@intrinsic
def _blend_vectors(typing_context, values, shares, out, head, place, start, end):
    """Adds values [C, D] of places `place` to `place + PLACES`, by shares[head], to columns `start` to `end` of out."""

    def generate(context, builder, signature, arguments):
        values, shares, out, head, place, start, end = _given(context, builder, signature, arguments)
        size, seen = place.type, _following(builder, place, PLACES)
        own = [_repeated(builder, shares, _index(builder, shares, head, each), LANES) for each in seen]
        with cgutils.for_range_slice(builder, start, end, size(LANES), size) as (index, _):
            target = _vector_at(builder, out, index, LANES)
            total = builder.load(target, align=4)
            for share, each in zip(own, seen, strict=True):
                value = _reals_at(builder, values, _index(builder, values, each, index))
                total = _added_product(builder, total, share, value)
            builder.store(total, target, align=4)
        return context.get_dummy_value()

    return types.void(values, shares, out, *[types.intp] * 4), generate


@inner
def exponential(x):
    """e to the power of x, float32, by the polynomial of Cephes: within 3e-7 of it for -87 < x < 88, 0 below."""
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    whole = min(max(whole, np.float32(-127.0)), np.float32(127.0))
    rest = x - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
    rest = min(max(rest, np.float32(-1.0)), np.float32(1.0))
    power = np.float32(1.9875691e-4)
    power = power * rest + np.float32(1.3981999e-3)
    power = power * rest + np.float32(8.3334519e-3)
    power = power * rest + np.float32(4.1665796e-2)
    power = power * rest + np.float32(1.6666666e-1)
    power = power * rest + np.float32(0.5)
    power = power * rest * rest + rest + np.float32(1.0)
    return power * _from_bits(np.int32(np.int32(np.int32(whole) + np.int32(127)) << np.int32(23)))


@inner
def gelu(x):
    """x times the normal distribution's integral up to it; Abramowitz and Stegun 7.1.26, within 1.5e-7 of that."""
    size = abs(x) * np.float32(0.70710678)
    t = np.float32(1.0) / (np.float32(1.0) + np.float32(0.3275911) * size)
    tail = np.float32(1.061405429)
    tail = tail * t - np.float32(1.453152027)
    tail = tail * t + np.float32(1.421413741)
    tail = tail * t - np.float32(0.284496736)
    tail = tail * t + np.float32(0.254829592)
    tail = np.float32(0.5) * tail * t * exponential(-size * size)
    return x * (np.float32(1.0) - tail if x > 0 else tail)


@inner
def normalise(x, weight, out):
    """Layer norm without a bias, one row [D]."""
    width = x.shape[0]
    total = np.float32(0.0)
    for i in range(width):
        total += x[i]
    mean = total / np.float32(width)
    squares = np.float32(0.0)
    for i in range(width):
        squares += (x[i] - mean) * (x[i] - mean)
    scale = np.float32(1.0) / np.sqrt(squares / np.float32(width) + np.float32(NORM_EPSILON))
    for i in range(width):
        out[i] = (x[i] - mean) * scale * weight[i]


@inner
def to_integers(x, out):
    """One row [K] as int16 -> what an integer stands for."""
    width = x.shape[0]
    largest, total = np.float32(0.0), np.float32(0.0)
    for i in range(width):
        largest = max(largest, abs(x[i]))
    for i in range(width):
        total += abs(x[i])
    scale = max(largest / np.float32(LARGEST_INTEGER), total / np.float32(LARGEST_SUM))
    if scale == 0:
        for i in range(width):
            out[i] = 0
        return scale
    inverse = np.float32(1.0) / scale
    for i in range(width):
        out[i] = np.int16(np.floor(x[i] * inverse + np.float32(0.5)))
    return scale


@inner
def multiply(values, steps, x, scales, out):
    """x [N, K] int16 with `scales` [N], values [outputs * K] with `steps` [outputs] -> out [N, outputs or more]."""
    count, width = x.shape
    outputs = steps.shape[0]
    out[:, :outputs] = np.float32(0.0)
    for first in range(0, width, SLICE):
        last = min(first + SLICE, width)
        block = max(4, CACHED_BYTES // (last - first) // 4 * 4)
        for start in range(0, outputs, block):
            end, row = min(start + block, outputs), 0
            while row + 4 <= count:
                for output in range(start, end, 4):
                    at = first * outputs + output * (last - first)
                    _multiply_four(values, at, x, scales, steps, out, row, output, first, last)
                row += 4
            if row + 2 <= count:
                for output in range(start, end, 4):
                    at = first * outputs + output * (last - first)
                    _multiply_two(values, at, x, scales, steps, out, row, output, first, last)
                row += 2
            if row < count:
                for output in range(start, end, 4):
                    at = first * outputs + output * (last - first)
                    _multiply_one(values, at, x, scales, steps, out, row, output, first, last)


@inner
def turn(x, cosines, sines, out):
    """Rotary positions: each head [W] of x [D], pairs (i, i + W / 2), into out [D]."""
    half = cosines.shape[0]
    for start in range(0, x.shape[0], 2 * half):
        first, second = x[start : start + half], x[start + half : start + 2 * half]
        to_first, to_second = out[start : start + half], out[start + half : start + 2 * half]
        for i in range(half):
            to_first[i] = first[i] * cosines[i] - second[i] * sines[i]
            to_second[i] = second[i] * cosines[i] + first[i] * sines[i]


@inner
def soften(scores, count):
    """The first of `scores` -> e to the power of them, less the largest; returns their sum."""
    largest = np.float32(-np.inf)
    for i in range(count):
        largest = max(largest, scores[i])
    for i in range(count):
        scores[i] = exponential(scores[i] - largest)
    total = np.float32(0.0)
    for i in range(count):
        total += scores[i]
    return total


@inner
def score(queries, keys, scores, place):
    """queries [D] by keys [C, D] of PLACES places -> scores[:, place : place + PLACES]."""
    width = queries.shape[0] // scores.shape[0]
    for head in range(scores.shape[0]):
        start, end = head * width, (head + 1) * width
        rest = end - width % LANES
        _score_vectors(queries, keys, scores, head, place, start, rest)
        for i in range(rest, end):
            for each in range(place, place + PLACES):
                scores[head, each] += queries[i] * _real(keys[each, i])


@inner
def blend(values, shares, place, out):
    """Adds values [C, D] of PLACES places, by shares[:, place : place + PLACES], to out [D]."""
    width = out.shape[0] // shares.shape[0]
    for head in range(shares.shape[0]):
        start, end = head * width, (head + 1) * width
        rest = end - width % LANES
        _blend_vectors(values, shares, out, head, place, start, rest)
        for i in range(rest, end):
            for each in range(place, place + PLACES):
                out[i] += shares[head, each] * _real(values[each, i])


@inner
def hide(scores, place):
    for head in range(scores.shape[0]):
        scores[head, place] = np.float32(-np.inf)


@inner
def attend(qkv, slots, layer, slot, position, queries, scores, out):
    """One row: qkv [3 D] at its position, into the cache and -> out [D]; queries [D] and scores [H, C] to work in.

    Memory is read straight on, PLACES at a time; what lies in those that do not count has no share.
    """
    heads, places = scores.shape
    keys, values = slots.cache[layer, 0, slot], slots.cache[layer, 1, slot]
    width, own = out.shape[0], position % places
    cosines, sines, window = slots.cosines[position], slots.sines[position], slots.window
    turn(qkv[:width], cosines, sines, queries)
    turn(qkv[width : 2 * width], cosines, sines, out)
    for i in range(width):
        queries[i] /= np.sqrt(np.float32(width // heads))
        keys[own, i], values[own, i] = _kept(keys, limited(out[i])), _kept(values, limited(qkv[2 * width + i]))
        out[i] = np.float32(0.0)
    seen = min(-(-(position + 1) // PLACES) * PLACES, places)
    for place in range(0, seen, PLACES):
        score(queries, keys, scores, place)
    for place in range(position + 1, seen):
        hide(scores, place)
    for age in range(window, places if position >= window else 0):
        hide(scores, (position - age) % places)
    for head in range(heads):
        queries[head] = np.float32(1.0) / soften(scores[head], seen)
    for place in range(0, seen, PLACES):
        blend(values, scores, place, out)
    for head in range(heads):
        for i in range(head * (width // heads), (head + 1) * (width // heads)):
            out[i] *= queries[head]


@inner
def limited(x):
    """A number that float16 has: an infinity in the cache would outlive its row, since no share of it is 0."""
    return min(max(x, np.float32(-LARGEST_FLOAT16)), np.float32(LARGEST_FLOAT16))


@inner
def add(x, more):
    for i in range(x.shape[0]):
        x[i] += more[i]


class Room(NamedTuple):
    """What the N rows of a step are worked out in."""

    integers: np.ndarray  # int16 [N, D]
    fed_integers: np.ndarray  # int16 [N, F]
    scales: np.ndarray  # [N]
    normed: np.ndarray  # [D]
    narrow: np.ndarray  # [N, D]
    wide: np.ndarray  # [N, 3 D]
    hidden: np.ndarray  # [N, F]
    scores: np.ndarray  # [H, C]


@inner
def room_for(count, width, fed, heads, places):
    return Room(
        np.empty((count, width), np.int16),
        np.empty((count, fed), np.int16),
        np.empty(count, np.float32),
        np.empty(width, np.float32),
        np.empty((count, width), np.float32),
        np.empty((count, 3 * width), np.float32),
        np.empty((count, fed), np.float32),
        np.empty((heads, places), np.float32),
    )


@inner
def normalised(x, weight, room):
    """x [N, D] -> their layer norms, as integers."""
    for row in range(x.shape[0]):
        normalise(x[row], weight, room.normed)
        room.scales[row] = to_integers(room.normed, room.integers[row])


@inner
def add_attention(values, reals, slots, layer, chosen, positions, room, x):
    """A block's first half: values and reals from its own on."""
    count, width = x.shape
    square = width * width
    normalised(x, reals[:width], room)
    multiply(values[: 3 * square], reals[width : 4 * width], room.integers, room.scales, room.wide)
    for row in range(count):
        attend(room.wide[row], slots, layer, chosen[row], positions[row], room.narrow[row], room.scores, room.normed)
        room.scales[row] = to_integers(room.normed, room.integers[row])
    multiply(values[3 * square : 4 * square], reals[4 * width : 5 * width], room.integers, room.scales, room.narrow)
    for row in range(count):
        add(x[row], room.narrow[row])


@inner
def add_feed_forward(values, reals, room, x):
    """A block's second half: values and reals from its own on."""
    (count, width), fed = x.shape, room.hidden.shape[1]
    normalised(x, reals[:width], room)
    multiply(values[: fed * width], reals[width : width + fed], room.integers, room.scales, room.hidden)
    for row in range(count):
        for i in range(fed):
            room.hidden[row, i] = gelu(room.hidden[row, i])
        room.scales[row] = to_integers(room.hidden[row], room.fed_integers[row])
    steps = reals[width + fed : 2 * width + fed]
    multiply(values[fed * width : 2 * fed * width], steps, room.fed_integers, room.scales, room.narrow)
    for row in range(count):
        add(x[row], room.narrow[row])


@inner
def body(weights, slots, chosen, positions, x):
    """x [N, D], inputs of slots `chosen` [N] at `positions` [N] -> their states, in `slots.states`."""
    (count, width), fed = x.shape, weights.feed_forward
    room = room_for(count, width, fed, weights.num_heads, slots.cache.shape[3])
    at, real = 0, 0
    for layer in range(slots.cache.shape[0]):
        values, reals = weights.values[at:], weights.reals[real:]
        add_attention(values, reals, slots, layer, chosen, positions, room, x)
        add_feed_forward(values[4 * width * width :], reals[5 * width :], room, x)
        at, real = at + 4 * width * width + 2 * fed * width, real + 7 * width + fed
    for row in range(count):
        normalise(x[row], weights.reals[real : real + width], slots.states[chosen[row]])


@inner
def order_of(x, out):
    """float32 [V] -> integers of the same order."""
    for i in range(x.shape[0]):
        bits = _bits(x[i])
        out[i] = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@inner
def bounds(keys):
    low, high = keys[0], keys[0]
    for key in keys:
        low, high = min(low, key), max(high, key)
    return np.int64(low), np.int64(high)


@inner
def least_of_top(keys, count):
    """The largest integer that at least `count` of `keys` reach."""
    low, high = bounds(keys)
    while low < high:
        middle = (low + high + 1) >> 1
        reached = 0
        for i in range(keys.shape[0]):
            reached += keys[i] >= np.int32(middle)
        if reached >= count:
            low = middle
        else:
            high = middle - 1
    return np.int32(low)


@inner
def least_of_mass(keys, shares, mass):
    """The smallest integer above which `shares` come to less than `mass`."""
    low, high = bounds(keys)
    while low < high:
        middle = (low + high) >> 1
        above = np.float32(0.0)
        for i in range(keys.shape[0]):
            above += shares[i] if keys[i] > np.int32(middle) else np.float32(0.0)
        if above < mass:
            high = middle
        else:
            low = middle + 1
    return np.int32(low)


@inner
def keep(keys, least, shares):
    """Shares of what is below `least` become 0 -> the sum of the others."""
    total = np.float32(0.0)
    for i in range(keys.shape[0]):
        shares[i] = shares[i] if keys[i] >= least else np.float32(0.0)
        total += shares[i]
    return total


@inner
def draw(logits, uniform, settings, keys, shares):
    """An id of `logits` [V] as `audiolm.lm.sampling.sample` draws it; keys and shares [V] to work in."""
    size = logits.shape[0]
    inverse, top_k, top_p = settings[0], np.int64(settings[1]), settings[2]
    if inverse == 0:
        best = 0
        for i in range(size):
            if logits[i] > logits[best]:
                best = i
        return best
    for i in range(size):
        shares[i] = logits[i] * inverse
    if top_k > 0 or top_p < 1:
        order_of(shares, keys)
    total = soften(shares, size)
    if 0 < top_k < size:
        total = keep(keys, least_of_top(keys, top_k), shares)
    if top_p < 1:
        total = keep(keys, least_of_mass(keys, shares, top_p * total), shares)
    return invert(shares, min(uniform, LARGEST_UNIFORM) * total)


@inner
def invert(shares, threshold):
    """The first id up to which shares [V] come to more than `threshold`; never one whose share is 0."""
    start, before, after = 0, np.float32(0.0), np.float32(0.0)
    for first in range(0, shares.shape[0], CHUNK):
        part = np.float32(0.0)
        for share in shares[first : first + CHUNK]:
            part += share
        if part > 0:
            start, before = first, after
            after += part
            if after > threshold:
                break
    last = start
    for i in range(start, min(start + CHUNK, shares.shape[0])):
        if shares[i] > 0:
            last = i
            before += shares[i]
            if before > threshold:
                break
    return last


@inner
def level_logits(values, reals, x, hidden, narrow, out):
    """x [M, E], a level's values and reals -> out [M, V or more]; hidden [M, 2 E] and narrow [M, E] to work in."""
    count, width = x.shape
    integers, wide_integers = np.empty((count, width), np.int16), np.empty((count, 2 * width), np.int16)
    scales, half = np.empty(count, np.float32), 2 * width * width
    norm, expand_steps, expand_bias = reals[:width], reals[width : 3 * width], reals[3 * width : 5 * width]
    contract_steps, contract_bias = reals[5 * width : 6 * width], reals[6 * width : 7 * width]
    for row in range(count):
        normalise(x[row], norm, narrow[row])
        scales[row] = to_integers(narrow[row], integers[row])
    multiply(values[:half], expand_steps, integers, scales, hidden)
    for row in range(count):
        add(hidden[row], expand_bias)
        for i in range(2 * width):
            hidden[row, i] = gelu(hidden[row, i])
        scales[row] = to_integers(hidden[row], wide_integers[row])
    multiply(values[half : 2 * half], contract_steps, wide_integers, scales, narrow)
    for row in range(count):
        add(narrow[row], contract_bias)
        add(narrow[row], x[row])
        normalise(narrow[row], reals[7 * width : 8 * width], narrow[row])
        scales[row] = to_integers(narrow[row], integers[row])
    multiply(values[2 * half :], reals[8 * width :], integers, scales, out)


@inner
def heads(weights, slots, chosen, used, tokens):
    """States of slots `chosen` [M] -> their next steps, in `tokens` [M, L] and as ids."""
    count, num_levels = tokens.shape
    width, depth, most = weights.inputs.shape[1], weights.lower.shape[1], slots.logits.shape[2]
    integers, scales = np.empty((count, width), np.int16), np.empty(count, np.float32)
    x, narrow = np.empty((count, depth), np.float32), np.empty((count, depth), np.float32)
    hidden = np.empty((count, 2 * depth), np.float32)
    keys, shares = np.empty(most, np.int32), np.empty(most, np.float32)
    values, reals = weights.values[weights.body_values :], weights.reals[weights.body_reals :]
    for row in range(count):
        scales[row] = to_integers(slots.states[chosen[row]], integers[row])
    multiply(values[: depth * width], reals[:depth], integers, scales, x)
    at, real, offset = depth * width, depth, 0
    for level in range(num_levels):
        size = weights.sizes[level]
        end, real_end = at + depth * (4 * depth + size), real + 8 * depth + size
        level_logits(values[at:end], reals[real:real_end], x, hidden, narrow, slots.logits[level])
        at, real = end, real_end
        for row in range(count):
            slot, logits = chosen[row], slots.logits[level, row, :size]
            uniform = slots.uniforms[slot, used[row], level]
            token = draw(logits, uniform, slots.settings[slot], keys[:size], shares[:size])
            tokens[row, level], slots.ids[slot, level] = token, offset + token
            if level + 1 < num_levels:
                add(x[row], weights.lower[offset + token])
        offset += size


def step(weights, slots, unread, positions, following, ready, used, tokens):
    """Reads the last steps of slots `unread` [N] at `positions`, which the condition steps `following` are added to,
    then chooses the next ones of slots `ready` [M] by their uniform numbers `used` [M], into `tokens` [M, L]."""
    x = np.zeros((unread.shape[0], weights.inputs.shape[1]), np.float32)
    for row in range(unread.shape[0]):
        for each in slots.ids[unread[row]]:
            add(x[row], weights.inputs[each])
        if slots.known.shape[1] > 0:
            add(x[row], slots.known[unread[row], min(following[row], slots.known.shape[1] - 1)])
    if unread.shape[0] > 0:
        body(weights, slots, unread, positions, x)
    heads(weights, slots, ready, used, tokens)


def _as_read(values: Tensor) -> Iterator[Tensor]:
    """A matrix [outputs, K] in the order in which it is read: by slices of columns, four outputs, vectors."""
    for part in values.split(SLICE, dim=1):
        yield part.unflatten(1, (-1, 2 * LANES)).unflatten(0, (-1, 4)).transpose(1, 2).flatten()


def packed_weights(model: StepModel) -> Weights:
    """A packed model's, copied."""
    values: list[Tensor] = []
    reals: list[Tensor] = []

    def take(matrix: PackedMatrix) -> None:
        values.extend(_as_read(matrix.values))
        reals.append(matrix.steps)

    for block in model.body.blocks:
        reals.append(block.attention_norm)
        take(block.qkv)
        take(block.out)
        reals.append(block.feed_forward_norm)
        take(block.feed_in)
        take(block.feed_out)
    reals.append(model.body.norm)
    body_values, body_reals = (sum(each.numel() for each in parts) for parts in (values, reals))
    take(model.state)
    for level, output in zip(model.levels, model.outputs, strict=True):
        reals.append(level.norm)
        take(level.expand)
        reals.append(level.expand_bias)
        take(level.contract)
        reals += [level.contract_bias, level.out_norm]
        take(output)
    lower = torch.cat(model.lower) if model.lower else model.inputs.new_zeros(0, len(model.state.steps))
    arrays = (each.numpy() for each in (torch.cat(values), torch.cat(reals), model.inputs, lower))
    sizes = np.array([len(output.steps) for output in model.outputs])
    config = model.body.config
    return Weights(*arrays, sizes, body_values, body_reals, config.feed_forward, config.num_heads)


_WEIGHTS: WeakKeyDictionary[StepModel, Weights] = WeakKeyDictionary()


def weights_of(model: StepModel) -> Weights:
    """A packed model's, made once."""
    if model not in _WEIGHTS:
        _WEIGHTS[model] = packed_weights(model)
    return _WEIGHTS[model]


def _kept_on_disk(function):
    """Compiled when it is made ready, and kept beside its file or in the user's cache folder; where neither can be
    written, compiled once a process."""
    try:
        return numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:
        return numba.njit(**OPTIONS)(function)


def _made_ready(dispatcher, given):
    """Compiled for what is given, or taken from the disk; what cannot be read there is compiled again."""
    try:
        dispatcher.compile(tuple(numba.typeof(each) for each in given))
    except Exception:  # the disk is full, or what it keeps is damaged: pickles, which may then raise anything
        if not dispatcher.signatures:
            with suppress(OSError):
                dispatcher.recompile()  # nothing yet: it only forgets what is kept, for the next process
            return numba.njit(**OPTIONS)(dispatcher.py_func)
    return dispatcher


_compiled = _kept_on_disk(step)


def compiled_step(*given: Weights | Slots | np.ndarray) -> None:
    """`step`, compiled at the first call."""
    global _compiled
    if not _compiled.signatures:
        _compiled = _made_ready(_compiled, given)
    _compiled(*given)
