//! `longreach info`: lists the devices and the one that `auto` selects, or describes a model.

use clap::Args;
use serde_json::json;

use super::info_model::describe;
use super::output::print_line;
use crate::checkpoint::rope_override::RopeOverride;
use crate::error::Result;
use crate::gpu::{AdapterReport, adapters, auto_adapter};

/// Flags of `info`.
#[derive(Args, Debug)]
pub struct InfoArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Describe this model instead of the devices
    #[arg(long, value_name = "DIR|FILE.gguf|HUB-ID")]
    model: Option<String>,
    /// Describe it with this RoPE scaling in place of its own, such as yarn:4
    #[arg(long, value_name = "KIND:FACTOR", requires = "model")]
    rope_scaling: Option<RopeOverride>,
}

/// Runs the command.
pub fn run(args: &InfoArgs) -> Result<()> {
    if let Some(model) = &args.model {
        return describe(model, args.rope_scaling, args.json);
    }
    let list = adapters();
    let auto = auto_adapter(&list).map_or("cpu".to_string(), |a| format!("{} ({})", a.name, a.backend));
    if args.json {
        let items: Vec<_> = list.iter().map(to_json).collect();
        let object = json!({ "adapters": items, "auto": auto, "threads": rayon::current_num_threads() });
        return print_line(&object.to_string());
    }
    for a in &list {
        print_line(&format!("{}  {}  [{}, {}]", a.index, a.name, a.backend, a.device_type))?;
        print_line(&format!("   driver    {} ({})", a.driver, a.vendor))?;
        let features = if a.features.is_empty() { "none".to_string() } else { a.features.join(", ") };
        print_line(&format!("   features  {features}"))?;
        let (low, high) = a.subgroup_sizes;
        if high > 0 {
            print_line(&format!("   subgroups {low} to {high} lanes"))?;
        }
        let mib = |b: u64| b >> 20;
        print_line(&format!(
            "   limits    binding {} MiB, buffer {} MiB, workgroup memory {} KiB, {} invocations per workgroup",
            mib(a.limits.max_storage_buffer_binding_size),
            mib(a.limits.max_buffer_size),
            a.limits.max_compute_workgroup_storage_size >> 10,
            a.limits.max_compute_invocations_per_workgroup
        ))?;
    }
    if list.is_empty() {
        print_line("no graphics adapter with compute shaders: install or update the driver, or use --device cpu")?;
    }
    print_line(&format!("cpu  {} threads, always available", rayon::current_num_threads()))?;
    print_line(&format!("auto selects {auto}; it never selects software adapters"))
}

fn to_json(a: &AdapterReport) -> serde_json::Value {
    json!({
        "index": a.index,
        "name": a.name,
        "backend": a.backend,
        "type": a.device_type,
        "vendor": a.vendor,
        "driver": a.driver,
        "features": a.features,
        "subgroup_sizes": [a.subgroup_sizes.0, a.subgroup_sizes.1],
        "memory_bytes": a.memory_bytes,
        "max_binding_bytes": a.limits.max_storage_buffer_binding_size,
        "max_buffer_bytes": a.limits.max_buffer_size,
        "max_workgroup_bytes": a.limits.max_compute_workgroup_storage_size,
        "max_invocations": a.limits.max_compute_invocations_per_workgroup,
    })
}
