"""The committed code is that of the .proto, and loads with old and new libraries."""

import pathlib
import re
import sys

import pytest
from google.protobuf import descriptor_pb2

import jscale.proto.v1 as generated
from jscale.proto.v1 import jscale_pb2 as pb

FOLDER = pathlib.Path(generated.__file__).parent


def test_the_code_asks_for_no_newer_protobuf_than_the_project():
    text = (FOLDER / "jscale_pb2.py").read_text()
    (version,) = re.findall(r"# Protobuf Python Version: (\d+)\.(\d+)", text)
    assert tuple(map(int, version)) <= (6, 31)


def test_imports_go_by_the_package():
    text = (FOLDER / "jscale_pb2_grpc.py").read_text()
    assert "from jscale.proto.v1 import jscale_pb2" in text


def test_the_code_is_that_of_the_proto(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    root = FOLDER.parents[2]
    out = tmp_path / "set"
    name = "jscale/proto/v1/jscale.proto"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["protoc"])
        arguments = ["protoc", f"-I{root}", f"--descriptor_set_out={out}", name]
        assert protoc.main(arguments) == 0
    fresh = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    for message in fresh.message_type:
        for field in message.field:
            field.ClearField("json_name")  # Not kept in generated code.
    committed = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(committed)
    assert committed == fresh
