"""How much room a search has, and how it grows.

The room is 16, 32, 64, 96, … tokens and the maximum length, so that there are few shapes to
compile programs for, and a search that ends early never pays for a long one.
"""

from flax_transformer.decoding.length_buckets import bucket_length

_FIRST_ROOM = 16

_COMPACTED_ROOM = 64
"""In less, attention to dead slots costs less than the programs of more shapes."""


def first_room(max_length: int) -> int:
    """Return the room that a search starts with."""
    return min(_FIRST_ROOM, max_length)


def next_room(room: int, max_length: int) -> int:
    """Return the room that follows: the next of 32, 64, 96, 128, 192, 256, 384, …, or all.

    All, where that is less than a third more.

    >>> rooms = [16]
    >>> while rooms[-1] < 300:
    ...     rooms.append(next_room(rooms[-1], 300))
    >>> rooms
    [16, 32, 64, 96, 128, 192, 300]
    >>> next_room(16, 42)
    42
    """
    power = 1 << room.bit_length()  # of two, the next one
    # Steps as long as the cache is short: each is compiled for itself.
    following = power * 3 // 4 if room >= 64 and power == 2 * room else power
    return max_length if 3 * max_length < 4 * following else following


def slots_to_keep(room: int, num_live: int, num_slots: int) -> int | None:
    """Return to how many slots to compact a full cache; None to leave it as it is.

    Args:
        room: tokens that the cache has room for.
        num_live: slots that a hypothesis attends to, in the row that has most of them.
        num_slots: slots that there are.

    >>> [slots_to_keep(64, num_live, 256) for num_live in (79, 100, 200)]
    [96, 128, None]
    """
    if room < _COMPACTED_ROOM:
        return None
    kept = bucket_length(num_live, num_slots)
    return kept if kept < num_slots else None
