"""What a stage host says to the world, as a promise that the edge keeps."""

import abc

from jscale.core.ids import PipelineId
from jscale.pipeline.messages import ServeEvent, StageMessage, StageSpec


class Outbox(abc.ABC):
    """Where results go. Called on the device thread; none of it may wait."""

    @abc.abstractmethod
    def send(self, stage: StageSpec, message: StageMessage, payload: bytes) -> None:
        """To the worker of that stage, in order for each worker.

        What cannot be delivered is dropped: the loss of the peer is told separately.
        """

    @abc.abstractmethod
    def emit(self, gateway: str, events: tuple[ServeEvent, ...]) -> None:
        """To the gateway that submitted the sequences, in order."""

    @abc.abstractmethod
    def closed(self, pipeline: PipelineId, reason: str) -> None:
        """The stages here gave their pages back."""
