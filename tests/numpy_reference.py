"""The Transformer in NumPy, written from the formulas of "Attention Is All You Need".

It shares nothing with the library but the names of the parameters. One sentence at a time, loops
over layers, heads and positions, float64; `allowed[t, s]` says whether t may attend to s.
"""

import math

import numpy as np


def softmax(logits):
    exponentials = np.exp(logits - max(logits))
    return exponentials / sum(exponentials)


def attention(queries, keys, values, allowed):
    """Equation 1 for one head: queries [T, H], keys and values [S, H]."""
    outputs = np.zeros((len(queries), values.shape[1]))
    for t, query in enumerate(queries):
        seen = [s for s in range(len(keys)) if allowed[t, s]]
        if not seen:
            continue
        logits = np.array([query @ keys[s] / math.sqrt(len(query)) for s in seen])
        for weight, s in zip(softmax(logits), seen, strict=True):
            outputs[t] += weight * values[s]
    return outputs


def multi_head_attention(params, x, y, allowed):
    """Section 3.2.2, `Concat(head_1, ..., head_N) W_O` as a sum over heads."""
    w_query, w_key, w_value, w_output = (
        np.asarray(params[name]["kernel"], np.float64)
        for name in ("query", "key", "value", "output")
    )
    outputs = np.zeros_like(x)
    for n in range(w_query.shape[1]):
        head = attention(x @ w_query[:, n], y @ w_key[:, n], y @ w_value[:, n], allowed)
        outputs += head @ w_output[n]
    return outputs


def gelu_exact(x):
    return np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": gelu_exact,
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def feed_forward(params, x, activation="relu"):
    """Equation 2, or the gated variant where the parameters hold a gate."""
    activate = ACTIVATIONS[activation]

    def linear(name, inputs):
        weights = params[name]
        return inputs @ np.asarray(weights["kernel"], np.float64) + np.asarray(
            weights.get("bias", 0.0), np.float64
        )

    hidden = linear("hidden", x)
    hidden = activate(linear("gate", x)) * hidden if "gate" in params else activate(hidden)
    return linear("output", hidden)


def layer_norm(params, x, epsilon):
    rows = []
    for row in x:
        mean = sum(row) / len(row)
        variance = sum((row - mean) ** 2) / len(row)
        normalised = (row - mean) / math.sqrt(variance + epsilon)
        rows.append(normalised * np.asarray(params["scale"]) + np.asarray(params["bias"]))
    return np.array(rows)


def add_and_norm(params, x, sublayer, config):
    if config.pre_norm:
        return x + sublayer(layer_norm(params["norm"], x, config.norm_epsilon))
    return layer_norm(params["norm"], x + sublayer(x), config.norm_epsilon)


def encoder_layer(params, x, allowed, config):
    x = add_and_norm(
        params["self_attention_residual"],
        x,
        lambda h: multi_head_attention(params["self_attention"], h, h, allowed),
        config,
    )
    return add_and_norm(
        params["feed_forward_residual"],
        x,
        lambda h: feed_forward(params["feed_forward"], h, config.activation),
        config,
    )


def decoder_layer(params, x, encoded, self_allowed, cross_allowed, config):
    x = add_and_norm(
        params["self_attention_residual"],
        x,
        lambda h: multi_head_attention(params["self_attention"], h, h, self_allowed),
        config,
    )
    x = add_and_norm(
        params["cross_attention_residual"],
        x,
        lambda h: multi_head_attention(params["cross_attention"], h, encoded, cross_allowed),
        config,
    )
    return add_and_norm(
        params["feed_forward_residual"],
        x,
        lambda h: feed_forward(params["feed_forward"], h, config.activation),
        config,
    )


def sinusoid(position, dim, layout="interleaved"):
    """Section 3.5, one position: a sine and a cosine for each of dim / 2 wavelengths."""
    encoding = [0.0] * dim
    for i in range(dim // 2):
        angle = position / 10000 ** (2 * i / dim)
        sine_at, cosine_at = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, dim // 2 + i)
        encoding[sine_at], encoding[cosine_at] = math.sin(angle), math.cos(angle)
    return np.array(encoding)


def embed(table, positions_table, tokens, config):
    rows = []
    for position, token in enumerate(tokens):
        row = np.asarray(table[token], np.float64)
        if config.scale_embedding:
            row = row * math.sqrt(config.model_dim)
        if positions_table is None:
            row = row + sinusoid(position, config.model_dim, config.sinusoid_layout)
        else:
            row = row + np.asarray(positions_table[position])
        rows.append(row)
    return np.array(rows)


def transformer(params, source, target, config):
    """Logits [T, V] of one pair without padding; layers stacked or not, tables tied or not."""

    def table(name, otherwise):
        return np.asarray(params[name if name in params else otherwise]["embedding"])

    def positions(name):
        return params[name]["embedding"] if name in params else None

    def finish(stack, x):
        return layer_norm(stack["final_norm"], x, config.norm_epsilon) if config.pre_norm else x

    source_length, target_length = len(source), len(target)
    source_table = table("source_embedding", "target_embedding")
    x = embed(source_table, positions("source_positions"), source, config)
    everything = np.ones((source_length, source_length), bool)
    for i in range(config.num_encoder_layers):
        x = encoder_layer(params["encoder"][f"layers_{i}"], x, everything, config)
    encoded = finish(params["encoder"], x)

    target_table = table("target_embedding", "target_embedding")
    x = embed(target_table, positions("target_positions"), target, config)
    past = np.array([[s <= t for s in range(target_length)] for t in range(target_length)])
    everything = np.ones((target_length, source_length), bool)
    for i in range(config.num_decoder_layers):
        x = decoder_layer(params["decoder"][f"layers_{i}"], x, encoded, past, everything, config)
    return finish(params["decoder"], x) @ table("output_embedding", "target_embedding").T
