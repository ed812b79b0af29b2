#!/bin/sh
# ONNX Runtime 1.32.0 (CPU): ArgMax and ReduceMax pass over NaN, unless it comes first; NumPy returns
# it. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__, "numpy", np.__version__)


def run(operator, output_type, values):
    attributes = {"keepdims": 0} | ({"axis": 0} if operator == "ArgMax" else {})
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(values)])],
        [helper.make_tensor_value_info("y", output_type, [])],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": np.array(values, np.float32)})[0].item()


nan = float("nan")
seen = []
for values in ([1, nan, 3, 2], [nan, 1, 3, 2]):
    index = run("ArgMax", TensorProto.INT64, values)
    largest = run("ReduceMax", TensorProto.FLOAT, values)
    seen.append(index)
    print(
        f"{values}: ArgMax {index} (NumPy {np.argmax(values)}), "
        f"ReduceMax {largest} (NumPy {np.max(values)})"
    )
    assert not (values[0] == 1 and np.isnan(largest)), "ReduceMax returns NaN now"
assert seen == [2, 0], f"the behaviour has changed: {seen}"
PYTHON
