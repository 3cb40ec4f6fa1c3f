"""The scan in plain ONNX operators: the specification of the node ``bsmamba2::mamba2_scan``.

An exported file has one node per scan, with these functions as the node's body, so any ONNX Runtime
can run it. If a kernel is registered for the node, it runs instead of the body. The steps and names
are those of :mod:`bsmamba2_network.scan`. ``mamba2_scan`` calls ``state_space``, the only function
that differs between targets.

The docstrings and variable names inside @script functions are part of the shipped graphs, so they
must not change. They say "chunk" for what is called a segment everywhere else, and ``scan.chunked``
for :func:`bsmamba2_network.scan.segmented`.
"""

# mypy: ignore-errors
# Inside @script, Python is read as ONNX: a name is a tensor, a call is an operator.

from __future__ import annotations

from copy import deepcopy

import onnx
from onnxscript import script
from onnxscript.onnx_opset import opset20 as op
from onnxscript.values import Opset

DOMAIN = "bsmamba2"
NAME = "mamba2_scan"
MIXER = "mamba2_mixer"
"""The scan between its two projections: what a kernel can compute tile by tile."""
STATES = "states"
"""The overload of nodes whose states are used, in a streaming graph."""
OPSET = 20
CONTRIB = "com.microsoft"

_ours = Opset(DOMAIN, 1)
_contrib = Opset(CONTRIB, 1)


@script(_ours, default_opset=op)
def state_space(x, a, B, C, h):
    """y_i = Σ_{j ≤ i} (C_i·B_j) exp(a_{j+1} + … + a_i) x_j in chunks of Q; see scan.chunked.

    x (b, L, H, P), a (b, L, H), B and C (b, L, N), h (b, H, P, N), all float32. Q is 64, or the
    length where that is less, so short sequences are not padded. The recurrence from chunk to
    chunk is one product with the matrix of decays between them, which needs no loop.
    """
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    batch, length, heads, P = op.Split(op.Shape(x), num_outputs=4)
    N = op.Shape(B, start=2)
    Q = op.Min(op.Constant(value_ints=[64]), op.Max(length, one))
    chunks = (length + Q - one) / Q

    # A step with x = 0 and a = 0 writes nothing and forgets nothing: it pads the last segment.
    fill = op.Concat(zero, zero, zero, zero, chunks * Q - length, zero, axis=0)
    rows = op.Concat(batch, chunks, Q, N, axis=0)
    B = op.Reshape(op.Pad(B, fill), rows, allowzero=1)  # (b, c, Q, N)
    C = op.Reshape(op.Pad(C, fill), rows, allowzero=1)
    x = op.Reshape(x, op.Concat(batch, length, heads * P, axis=0), allowzero=1)
    x = op.Reshape(op.Pad(x, fill), op.Concat(batch, chunks, Q, heads, P, axis=0), allowzero=1)
    x = op.Transpose(x, perm=[0, 1, 3, 2, 4])  # (b, c, H, Q, P)
    a = op.Reshape(op.Pad(a, fill), op.Concat(batch, chunks, Q, heads, axis=0), allowzero=1)
    total = op.CumSum(op.Transpose(a, perm=[0, 1, 3, 2]), op.Constant(value_int=3))  # (b, c, H, Q)

    # Inside the segments.
    step = op.Range(op.Constant(value_int=0), op.Squeeze(Q), op.Constant(value_int=1))
    past = op.Unsqueeze(step, one) >= op.Unsqueeze(step, zero)  # j ≤ i
    between = op.Unsqueeze(total, op.Constant(value_ints=[4])) - op.Unsqueeze(
        total, op.Constant(value_ints=[3])
    )
    never = op.Constant(value_float=float("-inf"))
    decay = op.Exp(op.Where(past, between, never))  # (b, c, H, Q, Q)
    scores = op.MatMul(C, op.Transpose(B, perm=[0, 1, 3, 2]))  # the same for all heads
    heads_axis = op.Constant(value_ints=[2])
    inside = op.MatMul(decay * op.Unsqueeze(scores, heads_axis), x)  # (b, c, H, Q, P)

    # From segment to segment: what each adds, then the state that enters each, and the last state.
    whole = op.Slice(total, op.Constant(value_ints=[-1]), Q, op.Constant(value_ints=[3]))
    to_end = op.Unsqueeze(op.Exp(whole - total), op.Constant(value_ints=[4]))
    added = op.MatMul(op.Transpose(x * to_end, perm=[0, 1, 2, 4, 3]), op.Unsqueeze(B, heads_axis))
    states = op.Concat(op.Unsqueeze(h, one), added, axis=1)  # (b, c + 1, H, P, N)
    cells = op.Concat(batch, heads, chunks + one, P * N, axis=0)
    states = op.Reshape(op.Transpose(states, perm=[0, 2, 1, 3, 4]), cells, allowzero=1)
    # between_cuts[i, j] = sum over the segments j … i − 1. Each column has a cumulative sum of its
    # own: a difference of two long sums would lose the small terms after a strong decay.
    whole = op.Transpose(op.Squeeze(whole, op.Constant(value_ints=[3])), perm=[0, 2, 1])
    whole = op.Pad(whole, op.Concat(zero, zero, one, zero, zero, zero, axis=0))  # (b, H, c + 1)
    cut = op.Range(op.Constant(value_int=0), op.Squeeze(chunks + one), op.Constant(value_int=1))
    row, column = op.Unsqueeze(cut, one), op.Unsqueeze(cut, zero)
    past_cut = row >= column
    counted = op.Where(row > column, op.Unsqueeze(whole, op.Constant(value_ints=[3])), 0.0)
    between_cuts = op.CumSum(counted, op.Constant(value_int=2))
    states = op.MatMul(op.Exp(op.Where(past_cut, between_cuts, never)), states)
    entering = op.Slice(states, zero, chunks, heads_axis)
    entering = op.Reshape(entering, op.Concat(batch, heads, chunks, P, N, axis=0), allowzero=1)
    final = op.Slice(states, chunks, chunks + one, heads_axis)
    final = op.Reshape(final, op.Concat(batch, heads, P, N, axis=0), allowzero=1)

    # What the state that enters a segment contributes to its steps.
    readers = op.Unsqueeze(C, heads_axis)  # (b, c, 1, Q, N)
    given = op.MatMul(readers, op.Transpose(entering, perm=[0, 2, 1, 4, 3]))  # (b, c, H, Q, P)
    y = inside + given * op.Unsqueeze(op.Exp(total), op.Constant(value_ints=[4]))
    y = op.Transpose(y, perm=[0, 1, 3, 2, 4])
    y = op.Reshape(y, op.Concat(batch, chunks * Q, heads, P, axis=0), allowzero=1)
    return op.Slice(y, zero, length, one), final


def state_space_contrib(heads: int) -> onnx.FunctionProto:
    """Builds the same sum with ONNX Runtime's ``LinearAttention``, which has a CUDA kernel.

    Its query is C, its key B, its value x, and its state is (b, H, N, P). The number of heads is an
    attribute of the operator, so the function is built for one network.
    """

    @script(_ours, default_opset=op)
    def state_space(x, a, B, C, h):
        batch, length, _, P = op.Split(op.Shape(x), num_outputs=4)
        flat = op.Concat(batch, length, P * op.Constant(value_ints=[heads]), axis=0)
        y, h = _contrib.LinearAttention(
            C,
            B,
            op.Reshape(x, flat, allowzero=1),
            op.Transpose(h, perm=[0, 1, 3, 2]),
            a,
            q_num_heads=1,
            kv_num_heads=heads,
            scale=1.0,
            update_rule="gated",
        )
        return op.Reshape(y, op.Shape(x), allowzero=1), op.Transpose(h, perm=[0, 1, 3, 2])

    return state_space.to_function_proto()


@script(_ours, default_opset=op)
def convolve(past, weight, bias):
    """Step 1: taps as shifted copies; past (b, 3 + L, channels), weight (channels, 1, 4)."""
    one = op.Constant(value_ints=[1])
    end = op.Shape(past, start=1, end=2)
    w0, w1, w2, w3 = op.Split(op.Transpose(weight, perm=[2, 1, 0]), num_outputs=4, axis=0)
    y = (
        bias
        + w0 * op.Slice(past, op.Constant(value_ints=[0]), end - op.Constant(value_ints=[3]), one)
        + w1 * op.Slice(past, op.Constant(value_ints=[1]), end - op.Constant(value_ints=[2]), one)
        + w2 * op.Slice(past, op.Constant(value_ints=[2]), end - one, one)
        + w3 * op.Slice(past, op.Constant(value_ints=[3]), end, one)
    )
    return y * op.Sigmoid(y)


@script(_ours, default_opset=op)
def mamba2_scan(
    zxbcdt,
    conv_weight,
    conv_bias,
    dt_bias,
    A_log,
    D,
    norm_weight,
    conv_state,
    ssm_state,
    head_dim: int,
    state_size: int,
    reverse: int,
    epsilon: float,
):
    """Steps 1 to 4; arguments and results as bsmamba2_network.mamba2_scan."""
    one = op.Constant(value_ints=[1])
    P = op.Reshape(op.Constant(value_int=head_dim), one)
    N = op.Reshape(op.Constant(value_int=state_size), one)
    heads = op.Shape(A_log)
    d_inner = op.Shape(norm_weight)
    batch = op.Shape(zxbcdt, start=0, end=1)
    length = op.Shape(zxbcdt, start=1, end=2)

    # The steps run 0 … L − 1 or L − 1 … 0: one Slice with step 1 − 2·reverse avoids a branch.
    backwards = op.Reshape(op.Constant(value_int=reverse), one)
    start = op.Neg(backwards)
    step = one - backwards - backwards
    end = step * op.Constant(value_ints=[4611686018427387904])  # 2^62: past either end
    steps = op.Slice(op.Cast(zxbcdt, to=1), start, end, one, step)
    z, xBC, dt = op.Split(steps, op.Concat(d_inner, d_inner + N + N, heads, axis=0), axis=2)

    # 1. Convolve; the state is (b, channels, width − 1), oldest first.
    before = op.Transpose(conv_state, perm=[0, 2, 1])
    before = op.Expand(before, op.Concat(batch, op.Shape(before, start=1), axis=0))
    past = op.Concat(before, xBC, axis=1)
    next_conv_state = op.Transpose(op.Slice(past, length, end * step, one), perm=[0, 2, 1])
    xBC = _ours.convolve(past, conv_weight, conv_bias)
    x, B, C = op.Split(xBC, op.Concat(d_inner, N, N, axis=0), axis=2)

    # 2. Discretise.
    delta = op.Softplus(dt + dt_bias)  # (b, L, H)
    a = op.Neg(op.Exp(A_log)) * delta

    # 3. Scan.
    last = op.Constant(value_ints=[-1])
    x = op.Reshape(x, op.Concat(batch, length, heads, P, axis=0), allowzero=1)
    h = op.Expand(ssm_state, op.Concat(batch, heads, P, N, axis=0))
    y, next_ssm_state = _ours.state_space(x * op.Unsqueeze(delta, last), a, B, C, h)
    y = y + x * op.Unsqueeze(D, last)
    y = op.Reshape(y, op.Concat(batch, length, d_inner, axis=0), allowzero=1)

    # 4. Gate.
    y = y * (z * op.Sigmoid(z))
    power = op.ReduceMean(y * y, last, keepdims=1)
    y = y / op.Sqrt(power + op.Constant(value_float=epsilon)) * norm_weight
    y = op.Slice(y, start, end, one, step)
    return op.CastLike(y, zxbcdt), next_conv_state, next_ssm_state


@script(_ours, default_opset=op)
def mamba2_mixer(
    u,
    in_weight,
    conv_weight,
    conv_bias,
    dt_bias,
    A_log,
    D,
    norm_weight,
    conv_state,
    ssm_state,
    out_weight,
    head_dim: int,
    state_size: int,
    reverse: int,
    epsilon: float,
):
    """in_proj, the scan and out_proj: u (b, L, D) to (b, L, D), weights as in checkpoints."""
    y, _, _ = _ours.mamba2_scan(
        op.MatMul(u, op.Transpose(in_weight, perm=[1, 0])),
        conv_weight,
        conv_bias,
        dt_bias,
        A_log,
        D,
        norm_weight,
        conv_state,
        ssm_state,
        head_dim=head_dim,
        state_size=state_size,
        reverse=reverse,
        epsilon=epsilon,
    )
    return op.MatMul(y, op.Transpose(out_weight, perm=[1, 0]))


def functions(
    target: str, heads: int, *, states: bool = False, padded: bool = False
) -> list[onnx.FunctionProto]:
    """Returns the functions that define the ``bsmamba2`` nodes for one target.

    Args:
        target: ``portable`` or ``ort``.
        heads: heads of the network.
        states: whether the states of some nodes are used. Those nodes have the overload ``states``;
            the body of the others computes no states, because ONNX Runtime computes everything in
            an inlined body and keeps unused results until the run ends.
        padded: whether zxbcdt has columns of padding.
    """
    space = state_space_contrib(heads) if target == "ort" else state_space.to_function_proto()
    plain = [mamba2_scan.to_function_proto(), convolve.to_function_proto(), space]
    if padded:
        _accept_padding(plain[0])
    stateful = [deepcopy(plain[0]), deepcopy(space)] if states else []
    call = next(node for node in plain[0].node if node.op_type == "state_space")
    mixer = mamba2_mixer.to_function_proto()
    inner = next(node for node in mixer.node if node.op_type == NAME)
    for outputs in (plain[0].output, call.output, space.output, inner.output):
        del outputs[1:]
    _drop_dead_nodes(plain[0])
    _drop_dead_nodes(space)
    if states:
        stateful[0].overload = STATES
        # ONNX Runtime ignores overloads inside a function, so this function has a different name.
        call = next(node for node in stateful[0].node if node.op_type == "state_space")
        call.op_type = stateful[1].name = "state_space_and_state"
    return [mixer, *plain, *stateful]


def _accept_padding(function: onnx.FunctionProto) -> None:
    """Makes the body of the scan split off the columns after dt, in place."""
    makers = {name: at for at, node in enumerate(function.node) for name in node.output}
    split = next(node for node in function.node if list(node.output) == ["z", "xBC", "dt"])
    at = makers[split.input[1]]
    sizes = function.node[at]
    make = onnx.helper.make_node
    added = [
        make("Shape", ["zxbcdt"], ["columns"], start=2, end=3),
        make("Add", sizes.input[:2], ["before_dt"]),
        make("Add", ["before_dt", sizes.input[2]], ["used"]),
        make("Sub", ["columns", "used"], ["unused"]),
    ]
    sizes.input.append("unused")
    split.output.append("padding")
    nodes = [*function.node[:at], *added, *function.node[at:]]
    del function.node[:]
    function.node.extend(nodes)


def _drop_dead_nodes(function: onnx.FunctionProto) -> None:
    """Removes the nodes that do not contribute to any output of the function, in place."""
    live = set(function.output)
    kept = []
    for node in reversed(function.node):
        if live.intersection(node.output):
            live.update(node.input)
            kept.append(node)
    del function.node[:]
    function.node.extend(reversed(kept))
