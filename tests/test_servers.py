"""The servers that the other tests stand on."""

import pytest

from tests.servers import REDIS_LIKE, answers_ping, redis_server


@pytest.mark.parametrize("kind", sorted(REDIS_LIKE))
def test_a_server_survives_a_kill_and_is_gone_after_its_block(kind: str) -> None:
    with redis_server(kind) as server:
        assert answers_ping(server)
        server.kill()
        assert not answers_ping(server)
        server.start()
        assert answers_ping(server)
    assert not answers_ping(server)
