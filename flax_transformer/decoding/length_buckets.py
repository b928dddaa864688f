"""Few lengths to pad rows to, so that few programs are compiled."""

_SHORTEST_BUCKET = 16


def bucket_length(length: int, max_length: int) -> int:
    """Return the length, 16, 32, 48, 64, 96, 128, … ``max_length``, to which rows are padded.

    >>> [bucket_length(length, 100) for length in (1, 16, 17, 33, 50, 97, 100)]
    [16, 16, 32, 48, 64, 100, 100]
    """
    power = max(_SHORTEST_BUCKET, 1 << (length - 1).bit_length())
    between = power * 3 // 4
    bucket = between if length <= between and between > 2 * _SHORTEST_BUCKET else power
    return min(bucket, max_length)
