#!/usr/bin/env python3
"""Trains an adapter with LRSA on one device or many, from and to the files of Longreach.

    python examples/train.py --model org/name --data DATA --out ADAPTER --steps 100
    torchrun --nproc_per_node 8 examples/train.py ...          # DDP
    torchrun --nproc_per_node 8 examples/train.py ... --fsdp   # FSDP2
    accelerate launch --num_processes 8 examples/train.py ...

The flags are those of `longreach train`. The loss of a step is the mean over its labelled tokens on
all devices. `metrics.jsonl` in the output folder has one line for each step.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from longreach_torch import (
    KeepCallback,
    KeepSchedule,
    LrsaHandle,
    Reader,
    collate,
    distillation_loss,
    enable_lrsa,
    from_longreach,
    positions_of,
    save_longreach,
    save_selection,
    teacher_logits,
)


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Train an adapter with LRSA")
    add = parser.add_argument
    add("--model", required=True, help="folder or hub id of the base model")
    add("--adapter", help="adapter to continue: a folder with longreach.json")
    add("--data", required=True, help="train.jsonl, or a folder with it")
    add("--out", required=True, help="folder for the adapter")
    add("--sink", type=int, help="sink tokens [default: recorded, else 16]")
    add("--lag", type=int, help="tokens per partition [default: recorded, else 128]")
    add(
        "--keep",
        help="keep ratio, or a list such as 1,0.5..0.125, of which each step draws one [default: "
        "r, r/2, 1, 1 in random order, where r is the recorded ratio or 0.25; r, r/2, 2r if a text "
        "is longer than 8,192 tokens]",
    )
    add("--distill", type=float, default=0.0, help="weight of the dense teacher, from 0 to 1")
    add("--teacher", choices=("base", "self"), default="base")
    add("--rank", type=int, default=16, help="of a new adapter, as are the next three")
    add("--alpha", type=float, help="[default: twice the rank]")
    add("--dropout", type=float, default=0.0)
    add("--targets", default="all", help="linear layers to adapt, such as q_proj,v_proj")
    add("--steps", type=int, required=True)
    add("--batch-size", type=int, default=1, help="examples of a batch, on each device")
    add("--accumulate", type=int, default=1, help="batches of a step, on each device")
    add("--save-every", type=int, default=200, help="steps between saves; 0 saves at the end only")
    add("--max-length", type=int, help="longer examples lose their end")
    add("--lr", type=float, default=2e-4)
    add("--schedule", choices=("constant", "cosine", "linear"), default="cosine")
    add("--warmup", type=int, default=0, help="steps with a rising learning rate")
    add("--optimizer", choices=("adamw", "sgd"), default="adamw", help="sgd has no momentum here")
    add("--clip", type=float, default=1.0, help="largest norm of the gradients; 0 clips none")
    add("--seed", type=int, default=0)
    add("--bf16", action="store_true", help="compute in bfloat16")
    add("--gradient-checkpointing", action="store_true")
    add("--fsdp", action="store_true", help="shard the model (FSDP2)")
    add("--device", choices=("auto", "cpu"), default="auto")
    return parser.parse_args()


class LrsaTrainer(Trainer):  # type: ignore[misc]
    """A `Trainer` that distils, and logs the exact loss of each step."""

    def __init__(
        self, *args: Any, handle: LrsaHandle, weight: float, teacher: Any, **kwargs: Any
    ) -> None:
        """Takes the handle, and the weight of the teacher."""
        super().__init__(*args, **kwargs)
        self.handle, self.weight, self.teacher = handle, weight, teacher
        self.positions: torch.Tensor | None = None
        self.step_loss = 0.0
        self.metrics = Path(self.args.output_dir) / "metrics.jsonl"
        if self.is_world_process_zero():
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            self.metrics.write_text("")

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Also counts the positions with a next token, over all devices."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        counts = [int(positions_of(b["labels"], b["attention_mask"])) for b in batches]
        self.positions = self.accelerator.reduce(torch.tensor(sum(counts), device=self.args.device))
        return batches, items

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one batch, as a part of its step."""
        if self.weight == 0.0:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            raise ValueError("The Trainer counts no labels for this model, so it cannot distil.")
        labels = inputs.pop("labels")
        wanted = teacher_logits(model, self.handle, self.teacher, **inputs)
        outputs = model(**inputs, use_cache=False)
        parts = distillation_loss(
            outputs.logits,
            wanted,
            labels,
            self.weight,
            inputs["attention_mask"],
            num_items_in_batch,
            self.positions,
        )
        loss = parts.loss * self.accelerator.num_processes  # the devices' gradients are averaged
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Also writes the loss of the step, once its batches are through."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.step_loss += self.accelerator.reduce(loss.detach(), reduction="mean").item()
        if self.accelerator.sync_gradients:
            line = {"step": self.state.global_step + 1, "loss": self.step_loss}
            self.step_loss = 0.0
            if self.is_world_process_zero():
                with self.metrics.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
        return loss

    def save(self) -> None:
        """Saves the adapter. Its files replace older ones when all of them are written."""
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        state_dict = get_model_state_dict(self.model, options=whole)  # gathers what FSDP shards
        if self.is_world_process_zero():
            partial = Path(self.args.output_dir) / "partial"
            save_longreach(self.model, partial, self.handle, state_dict)
            for file in partial.iterdir():
                file.replace(partial.parent / file.name)
            partial.rmdir()
        self.accelerator.wait_for_everyone()  # the end of one process would end the one that saves


class SaveCallback(TrainerCallback):  # type: ignore[misc]
    """Saves the adapter every few steps, but the last."""

    def __init__(self, trainer: LrsaTrainer, every: int) -> None:
        """Takes the trainer and the number of steps."""
        self.trainer, self.every = trainer, every

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Saves with the ratio that `KeepCallback` set before."""
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.trainer.save()


def load(args: argparse.Namespace) -> tuple[Any, LrsaHandle]:
    """The model with its adapter, new or continued, and LRSA in it."""
    given = {"sink": args.sink, "lag": args.lag}
    changes = {name: value for name, value in given.items() if value is not None}
    if args.adapter:
        model, handle = from_longreach(
            args.adapter, base=args.model, is_trainable=True, dtype=torch.float32
        )
        if changes:
            handle.disable()
            handle = enable_lrsa(model, **{**asdict(handle.settings), **changes})
        return model, handle
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    targets = "all-linear" if args.targets == "all" else args.targets.split(",")
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=args.rank,
        lora_alpha=args.alpha or 2 * args.rank,
        lora_dropout=args.dropout,
        target_modules=targets,
    )
    torch.manual_seed(args.seed)  # every process draws the same adapter
    model = get_peft_model(model, adapter)
    return model, enable_lrsa(model, **changes)


def reader(args: argparse.Namespace, model: Any) -> Reader:
    """A reader of the data, with the tokenizer of the model if it has one."""
    folder = Path(args.model)
    if folder.is_dir() and not any(folder.glob("tokenizer*")):
        return Reader(None, max_length=args.max_length)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    eos = tokenizer.eos_token_id
    if eos is None:
        eos = model.generation_config.eos_token_id
    return Reader(tokenizer, eos[0] if isinstance(eos, list) else eos, args.max_length)


def training_arguments(args: argparse.Namespace, model: Any) -> TrainingArguments:
    """The arguments of the `Trainer`."""
    fsdp: dict[str, Any] = {}
    if args.fsdp:
        if not torch.accelerator.is_available():
            raise SystemExit("--fsdp needs accelerators: accelerate does not shard on the CPU.")
        layer = type(model.get_base_model().get_decoder().layers[0]).__name__
        config = {"version": 2, "transformer_layer_cls_to_wrap": [layer]}
        os.environ["FSDP_VERSION"] = "2"  # transformers 4 passes no version on
        fsdp = {"fsdp": "full_shard auto_wrap", "fsdp_config": config}
    made = TrainingArguments(
        output_dir=args.out,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        gradient_accumulation_steps=args.accumulate,
        learning_rate=args.lr,
        lr_scheduler_type=args.schedule,
        warmup_steps=args.warmup,
        optim="adamw_torch" if args.optimizer == "adamw" else "sgd",
        weight_decay=0.0,
        max_grad_norm=args.clip,
        seed=args.seed,
        bf16=args.bf16,
        gradient_checkpointing=args.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": save_selection},
        use_cpu=args.device == "cpu",
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        logging_steps=10,
        ddp_find_unused_parameters=False,
        **fsdp,
    )
    if made.n_gpu > 1:
        raise SystemExit(
            f"DataParallel on {made.n_gpu} GPUs does not work with LRSA: launch with torchrun, or "
            "choose one with CUDA_VISIBLE_DEVICES=0."
        )
    return made


def main() -> None:
    """Trains and saves."""
    args = arguments()
    model, handle = load(args)
    examples = reader(args, model).read(args.data)
    longest = max(len(example["input_ids"]) for example in examples)
    schedule = (
        KeepSchedule(args.keep, args.steps, args.seed)
        if args.keep
        else KeepSchedule.usual(handle.settings, longest, args.steps, args.seed)
    )
    handle.keep = schedule.recorded
    trainer = LrsaTrainer(
        model=model,
        args=training_arguments(args, model),
        train_dataset=examples,
        data_collator=collate,
        callbacks=[KeepCallback(handle, schedule)],
        handle=handle,
        weight=args.distill,
        teacher=args.teacher,
    )
    if args.save_every > 0:
        trainer.add_callback(SaveCallback(trainer, args.save_every))
    trainer.train()
    trainer.save()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
