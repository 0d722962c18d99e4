"""Runs a training script under FSDP2 on the CPU, where accelerate itself would use DDP.

The plugin is the one that the script's --fsdp gives on accelerators.
"""

import runpy
import sys

from accelerate.state import AcceleratorState, DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor
from transformers import Trainer


def shard(self):
    create(self)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[layer],
        state_dict_type="FULL_STATE_DICT",
    )
    shared = AcceleratorState._shared_state
    shared.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    self.is_fsdp_enabled = True


def checked(self, *args, **kwargs):
    result = train(self, *args, **kwargs)
    assert all(isinstance(p, DTensor) for p in self.model.parameters()), "nothing was sharded"
    return result


layer = sys.argv[1]
sys.argv = sys.argv[2:]
create, train = Trainer.create_accelerator_and_postprocess, Trainer.train
Trainer.create_accelerator_and_postprocess, Trainer.train = shard, checked
runpy.run_path(sys.argv[0], run_name="__main__")
