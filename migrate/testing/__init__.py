"""For your tests as for ours: streams to order, random streams, a corpus as tests.

A small guest and its stream, open to every edit (`builder`); `table`, `drop`, `insert`, `move` … do the damage:

    from migrate import check
    from migrate.building.builder import StreamBuilder

    def test_my_tool_refuses_a_guest_without_shared_info():
        b = StreamBuilder.pv(4, vcpus=2, roots=2)       # or .pv(8), .hvm()
        b.drop("SHARED_INFO")
        b.wrap("xl")                                    # in the container that `xl save` writes
        assert not my_tool(b.build()).ok

The same with as many pages as it takes, and guests of many gigabytes straight into a file:

    from migrate.building.shapes import pv_guest
    from migrate.building.big_streams import write_synthetic

    stream = pv_guest(4, pages=2048, vcpus=4, roots=4, table_share=0.02, rounds=3).build()
    write_synthetic("guest.libxc", kind="pv", size_bytes=8 << 30, sparse=True)

Random guests and streams for hypothesis (`strategies`): `guests()` gives builders, `streams()` valid bytes,
`damaged_streams()` bytes and the rule that they break:

    from hypothesis import given
    from migrate.testing import strategies

    @given(strategies.streams())
    def test_my_tool_keeps_a_stream_valid(stream):
        assert check(my_tool(stream)).verdict == "accept"

    @given(strategies.damaged_streams(["HYP-22", "XRC-09"]))
    def test_my_tool_does_not_hide_damage(damaged):
        stream, rule = damaged
        assert rule in {finding.rule.id for finding in check(my_tool(stream)).findings}

A directory of streams and what is expected of them as tests of your own run (`pytest_plugin`, which pytest finds by
itself once this package is installed):

    pytest --streams tests/streams                      # beside all other tests; -m stream: these alone

The same from a prompt: `migrate synth`, `migrate corpus run`; and `migrate corpus shrink` to make a stream that fails
small enough to look at, `migrate corpus scrub` to take the guest's memory out of it.

Nothing here is imported before it is asked for: `strategies` needs hypothesis, the plugin pytest.
"""
