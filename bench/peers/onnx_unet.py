"""The same network as an ONNX graph, argmax included, for ONNX Runtime and OpenVINO: onnx_unet.py WEIGHTS OUT"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from weights import read_safetensors, widths


class Graph:
    def __init__(self, tensors):
        self.tensors, self.nodes, self.constants = tensors, [], {}

    def constant(self, name):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(self.tensors[name]), name)
        return name

    def add(self, op, inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def double(self, prefix, x):
        for conv, norm in ((0, 1), (3, 4)):
            x = self.add("Conv", [x, self.constant(f"{prefix}.double_conv.{conv}.weight")], pads=[1, 1, 1, 1])
            parts = [self.constant(f"{prefix}.double_conv.{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
            x = self.add("Relu", [self.add("BatchNormalization", [x, *parts], epsilon=1e-5)])
        return x


def build(tensors, size=256):
    bands, _, depth, _ = widths(tensors)
    graph = Graph(tensors)
    skips = [graph.double("inc", "image")]
    for i in range(1, depth + 1):
        pooled = graph.add("MaxPool", [skips[-1]], kernel_shape=[2, 2], strides=[2, 2])
        skips.append(graph.double(f"down{i}.maxpool_conv.1", pooled))
    x = skips.pop()
    for i in range(1, depth + 1):
        up = graph.add("ConvTranspose", [x, graph.constant(f"up{i}.up.weight"), graph.constant(f"up{i}.up.bias")],
                       kernel_shape=[2, 2], strides=[2, 2])
        x = graph.double(f"up{i}.conv", graph.add("Concat", [skips.pop(), up], axis=1))
    x = graph.add("Conv", [x, graph.constant("outc.conv.weight"), graph.constant("outc.conv.bias")])
    graph.nodes.append(helper.make_node("ArgMax", [x], ["labels"], axis=1, keepdims=0))
    return helper.make_model(helper.make_graph(
        graph.nodes, "unet", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, bands, size, size])],
        [helper.make_tensor_value_info("labels", TensorProto.INT64, [1, size, size])], list(graph.constants.values())),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    onnx.save(build(read_safetensors(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
