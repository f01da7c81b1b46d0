"""Our ONNX through a parser and builder of TensorRT's family, which need no GPU (engines cannot run without)."""

from __future__ import annotations

import pytest

from deploy_networks import facts, lively, preprocessing
from fedclient.worker.deploy import CPU, TENSORRT, Form, deploy_graphs

tensorrt = pytest.importorskip("tensorrt_rtx_bindings")


@pytest.mark.parametrize("form", [TENSORRT, CPU], ids=lambda form: form.name)
def test_whole_backbone_and_head_parse_and_build(form: Form) -> None:
    network, prepared = lively(), preprocessing()
    graphs = deploy_graphs(network, facts(network, prepared), form=form, pixels="float32").by_name()
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    for name, model in graphs.items():
        builder = tensorrt.Builder(logger)
        definition = builder.create_network(0)
        parser = tensorrt.OnnxParser(definition, logger)
        assert parser.parse(model.SerializeToString()), (name, parser.get_error(0))
        assert definition.num_layers > 0  # the parser has been seen to accept junk in silence
        source = definition.get_input(0)
        profile = builder.create_optimization_profile()
        shape = [(count, *tuple(source.shape)[1:]) for count in (1, 1, 4)]
        profile.set_shape(source.name, *shape)
        config = builder.create_builder_config()
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(definition, config)
        assert plan is not None and plan.nbytes > 1000, name
