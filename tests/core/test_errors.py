"""One family: whoever catches `JscaleError` catches all that the world did wrong."""

import inspect

from jscale.core import errors


def test_every_error_is_of_the_family():
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]
    assert len(found) > 5
    assert all(issubclass(cls, errors.JscaleError) for cls in found)
    assert all(cls.__doc__ for cls in found)


def test_a_lost_peer_is_a_transport_error():
    assert issubclass(errors.PeerLostError, errors.TransportError)
