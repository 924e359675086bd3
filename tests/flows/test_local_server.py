"""Where the server of this machine is, for itself and for browsers elsewhere."""

import socket

import pytest

from flows.local_server import addresses, refuse_taken
from tasks.base.errors import BadInput

NAME = socket.gethostname()


@pytest.mark.parametrize(
    ("host", "here", "elsewhere"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", NAME),
        ("::", "[::1]", NAME),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
    ],
)
def test_a_server_on_every_interface_is_named_by_its_machine(host: str, here: str, elsewhere: str) -> None:
    assert addresses(host, 4200) == (f"http://{here}:4200/api", f"http://{elsewhere}:4200/api")


def test_a_port_that_another_program_has_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            BadInput, match=f"127.0.0.1:{port}: another program listens there; set PORT_OF_IT"
        ):
            refuse_taken("127.0.0.1", port, "PORT_OF_IT")
    refuse_taken("127.0.0.1", port, "PORT_OF_IT")
