"""A client that knows the server only by reflection can use it."""

import asyncio

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


def use(address):
    """What a tool does that was given nothing but the address."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "jscale.v1.Jscale" in database.get_services()
        service = DescriptorPool(database).FindServiceByName("jscale.v1.Jscale")
        method = service.FindMethodByName("Generate")
        assert method.server_streaming
        request = GetMessageClass(method.input_type)(text="hi")
        request.sampling.max_tokens = 4
        call = channel.unary_stream(
            f"/{service.full_name}/{method.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return [token.id for response in call(request) for token in response.tokens]


def test_a_client_that_knows_nothing_gets_its_tokens(stage, tools):
    async def play(stage):
        await stage.start_manager()
        head = await stage.start_head("w0")
        await stage.start_gateway()
        await stage.manager.tell_replicas(head.replica())
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(None, use, stage.address)
        assert tokens == tools.continuation([104, 105], 4)

    stage(play)
