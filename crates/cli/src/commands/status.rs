//! `tenantry status`.

use anyhow::Result;
use tenantry_api::admin::types::{Status, Worker};

use crate::client::Client;
use crate::output::{print_json, print_table, size, table};

pub(crate) fn run(client: &Client, json: bool) -> Result<()> {
    let status: Status = client.get("/admin/v1/status")?;
    if json {
        return print_json(&status);
    }
    let runtime = status.runtime.as_deref().map_or_else(
        || "not known until the first worker starts".to_owned(),
        |version| format!("ONNX Runtime {version}"),
    );
    println!("server      {} (version {})", if status.ready { "ready" } else { "draining" }, status.version);
    println!("engine      {runtime}");
    println!(
        "registry    {} tenants, {} models, {} being registered",
        status.tenants, status.models, status.registering
    );
    println!("slots       {}, {} batches running", status.slots, status.running_batches);
    println!("queue       {} tasks, {}", status.queued_tasks, size(status.queued_bytes));
    let isolation = &status.isolation;
    let (level, minimum) = (isolation.level.as_str(), isolation.minimum.as_str());
    println!("isolation   {level}: {}; at least {minimum} demanded by the settings", isolation.in_force.join(", "));
    if isolation.models_below_minimum > 0 {
        println!("            {} models are not run: they or their owners demand more", isolation.models_below_minimum);
    }
    for missing in &status.isolation.not_in_force {
        println!("            without {}: {}", missing.barrier, missing.why);
    }
    println!("deaths      {} workers ended unasked since the start", status.worker_deaths);
    println!();
    let mut rows = table(&["worker", "state", "process", "models of", "data of", "loaded", ""]);
    for worker in &status.workers {
        rows.add_row([
            worker.id.to_string(),
            worker.state.clone(),
            worker.pid.map_or_else(String::new, |pid| pid.to_string()),
            worker.model_owner.clone(),
            worker.data_owner.clone(),
            worker.replicas.to_string(),
            note(worker).to_owned(),
        ]);
    }
    print_table(&rows, "no workers: they start when a model is asked");
    Ok(())
}

fn note(worker: &Worker) -> &'static str {
    match (worker.registration, worker.busy) {
        _ if worker.suspended => "suspended for a reservation",
        (true, _) => "registers a version",
        (false, true) => "computes",
        (false, false) => "",
    }
}
