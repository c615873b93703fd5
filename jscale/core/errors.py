"""The one family of errors. A message says what, the value, and what to do."""


class JscaleError(Exception):
    """Anything the world did wrong; our own bugs are assertions."""


class ConfigError(JscaleError):
    """A setting or flag that cannot be used."""


class CheckpointError(JscaleError):
    """A checkpoint or block store that cannot be read."""


class IntegrityError(JscaleError):
    """Bytes whose checksum or digest is not the one that was promised."""


class TransportError(JscaleError):
    """An address that cannot be listened on or a connection that cannot be made."""


class PeerLostError(TransportError):
    """The other side of a connection is gone."""


class RequestError(JscaleError):
    """A request that can never be served as it stands: the client must change it."""


class OverloadedError(JscaleError):
    """A bounded queue is full: the client should try again later."""


class UnavailableError(JscaleError):
    """Nothing can serve this now: a process is not there yet, or is leaving."""
