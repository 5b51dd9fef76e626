"""ONNX's own tests of its operators, by ONNX's reference with our convolutions."""

from __future__ import annotations

import onnx.backend.base
import onnx.backend.test
import with_onnx
from onnx.reference import ReferenceEvaluator

OPERATORS = [with_onnx.Conv, with_onnx.ConvTranspose, with_onnx.ConvInteger, with_onnx.QLinearConv, with_onnx.Col2Im]


class Prepared(onnx.backend.base.BackendRep):
    def __init__(self, model):
        self.evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)

    def run(self, inputs, **options):  # noqa: ARG002
        return self.evaluator.run(None, dict(zip(self.evaluator.input_names, inputs, strict=False)))


class Backend(onnx.backend.base.Backend):
    @classmethod
    def prepare(cls, model, device="CPU", **options):  # noqa: ARG003
        return Prepared(model)

    @classmethod
    def supports_device(cls, device):
        return device == "CPU"


runner = onnx.backend.test.BackendTest(Backend, __name__).include(r"(?i)conv|col2im").exclude("(?i)deform|_cuda")
globals().update(runner.test_cases)
