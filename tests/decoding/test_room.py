"""The room of a search: few sizes, each of which programs are compiled for."""

import itertools

import pytest

from flax_transformer.decoding.room import first_room, next_room, slots_to_keep


def rooms_up_to(max_length):
    rooms = [first_room(max_length)]
    while rooms[-1] < max_length:
        rooms.append(next_room(rooms[-1], max_length))
    return rooms


@pytest.mark.parametrize("max_length", [1, 15, 16, 17, 33, 100, 512, 1000])
def test_a_search_grows_by_ever_longer_steps_to_its_maximum_length(max_length):
    rooms = rooms_up_to(max_length)
    assert rooms[-1] == max_length
    assert all(new > old for old, new in itertools.pairwise(rooms))
    assert len(rooms) <= 2 * max_length.bit_length()


@pytest.mark.parametrize("beam_size", [2, 4, 8])
def test_of_a_full_cache_as_much_is_kept_as_is_alive_in_a_bounded_number_of_sizes(beam_size):
    for room in rooms_up_to(300)[2:]:
        sizes = set()
        for num_live in range(room, room * beam_size + 1):
            num_slots = slots_to_keep(room, num_live, room * beam_size)
            if num_slots is not None:
                assert num_live <= num_slots < min(1.5 * num_live, room * beam_size)
            sizes.add(num_slots)
        assert None in sizes
        assert len(sizes) <= 2 * beam_size.bit_length()
