"""Runs examples/train.py --fsdp on the CPU, where accelerate would not shard.

The plugin is the one that the script's arguments make.
"""

import os
import runpy
import sys

import torch
from accelerate.state import AcceleratorState, DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments


def post_init(self):
    torch.accelerator.is_available = is_available
    make(self)


def shard(self):
    create(self)
    # transformers 4 hands the settings over in the environment.
    settings = getattr(self.args, "fsdp_plugin_args", None) or {}
    plugin = FullyShardedDataParallelPlugin(**settings)
    assert plugin.fsdp_version == 2
    shared = AcceleratorState._shared_state
    shared.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    self.is_fsdp_enabled = True


def checked(self, *args, **kwargs):
    result = train(self, *args, **kwargs)
    layers = self.model.get_base_model().get_decoder().layers
    assert all(isinstance(p, DTensor) for p in self.model.parameters()), "nothing was sharded"
    assert all(type(layer).__name__.startswith("FSDP") for layer in layers), "no layer of its own"
    return result


sys.argv = sys.argv[1:]
is_available, make = torch.accelerator.is_available, TrainingArguments.__post_init__
create, train = Trainer.create_accelerator_and_postprocess, Trainer.train
torch.accelerator.is_available = lambda: True  # until the script has made its arguments
TrainingArguments.__post_init__ = post_init
Trainer.create_accelerator_and_postprocess, Trainer.train = shard, checked
runpy.run_path(sys.argv[0], run_name="__main__")
# Threads of gloo now and then abort the end of an interpreter that sharded a model.
sys.stdout.flush()
os._exit(0)
