//! Shares and limits: `tenantry tenant limits`, `tenantry tenant show`, `tenantry organisation limits`.

use std::time::Duration;

use anyhow::Result;
use tenantry_api::admin::types::{
    DeviceTime, RequestRate, Share, ShareChange, ShareKind, ShareSettings, ShareSubject, Shares, Tier, WorkerLimits,
};
use ureq::http::Method;

use crate::arguments::{LimitName, Limits, TierName};
use crate::client::Client;
use crate::output::{print_json, print_table, size, span, table};

/// Sets what was named, if anything was, and prints what holds.
pub(crate) fn run(client: &Client, path: &str, limits: &Limits, json: bool) -> Result<()> {
    let mut share: Share = client.get(path)?;
    if *limits != Limits::default() {
        // Made from the generation that was read, so that nobody else's change is undone unseen.
        let settings = changed(std::mem::take(&mut share.settings), limits);
        let change = ShareChange { generation: Some(share.generation), settings };
        share = client.send(Method::PUT, path, &change)?;
    }
    if json {
        return print_json(&share);
    }
    print(&share);
    Ok(())
}

/// Prints the shares of a tenant, its deployments and its keys.
pub(crate) fn print_all(shares: &Shares, json: bool) -> Result<()> {
    if json {
        return print_json(shares);
    }
    for (position, share) in shares.shares.iter().enumerate() {
        if position > 0 {
            println!();
        }
        print(share);
    }
    Ok(())
}

fn changed(now: ShareSettings, limits: &Limits) -> ShareSettings {
    let mut new = if limits.reset { ShareSettings::default() } else { now };
    for name in &limits.unset {
        unset(&mut new, *name);
    }
    let millis = |burst: Duration| u64::try_from(burst.as_millis()).unwrap_or(u64::MAX);
    let device = |slots: f64, burst: Option<Duration>| DeviceTime { slots, burst_ms: burst.map(millis) };
    let rate = |per_second| RequestRate { per_second, burst: limits.burst };
    let worker = new.worker.unwrap_or_default();
    let worker = WorkerLimits {
        memory_bytes: limits.worker_memory.map(|size| size.0).or(worker.memory_bytes),
        max_processes: limits.worker_processes.or(worker.max_processes),
        max_cpus: limits.worker_cpus.or(worker.max_cpus),
    };
    ShareSettings {
        organisation: limits.organisation.clone().or(new.organisation),
        tier: limits.tier.map(api_tier).or(new.tier),
        weight: limits.weight.or(new.weight),
        reservation: limits.reserve.map(|slots| device(slots, limits.reserve_burst)).or(new.reservation),
        device_time: limits.device_time.map(|slots| device(slots, limits.device_time_burst)).or(new.device_time),
        request_rate: limits.rate.map(rate).or(new.request_rate),
        max_requests: limits.max_requests.or(new.max_requests),
        max_queued_tasks: limits.max_queued_tasks.or(new.max_queued_tasks),
        max_queued_bytes: limits.max_queued_data.map(|size| size.0).or(new.max_queued_bytes),
        max_body_bytes: limits.max_body.map(|size| size.0).or(new.max_body_bytes),
        max_bodies_bytes: limits.max_bodies.map(|size| size.0).or(new.max_bodies_bytes),
        max_cache_bytes: limits.max_cache.map(|size| size.0).or(new.max_cache_bytes),
        slot_group: limits.slot_group.clone().or(new.slot_group),
        batch_with_others: limits.batch_with_others.or(new.batch_with_others),
        worker: (worker != WorkerLimits::default()).then_some(worker),
    }
}

fn worker(settings: &mut ShareSettings) -> &mut WorkerLimits {
    settings.worker.get_or_insert_default()
}

fn unset(settings: &mut ShareSettings, name: LimitName) {
    match name {
        LimitName::Organisation => settings.organisation = None,
        LimitName::Tier => settings.tier = None,
        LimitName::Weight => settings.weight = None,
        LimitName::Reservation => settings.reservation = None,
        LimitName::DeviceTime => settings.device_time = None,
        LimitName::Rate => settings.request_rate = None,
        LimitName::MaxRequests => settings.max_requests = None,
        LimitName::MaxQueuedTasks => settings.max_queued_tasks = None,
        LimitName::MaxQueuedData => settings.max_queued_bytes = None,
        LimitName::MaxBody => settings.max_body_bytes = None,
        LimitName::MaxBodies => settings.max_bodies_bytes = None,
        LimitName::MaxCache => settings.max_cache_bytes = None,
        LimitName::SlotGroup => settings.slot_group = None,
        LimitName::BatchWithOthers => settings.batch_with_others = None,
        LimitName::WorkerMemory => worker(settings).memory_bytes = None,
        LimitName::WorkerProcesses => worker(settings).max_processes = None,
        LimitName::WorkerCpus => worker(settings).max_cpus = None,
    }
}

fn api_tier(tier: TierName) -> Tier {
    match tier {
        TierName::Guaranteed => Tier::Guaranteed,
        TierName::Burstable => Tier::Burstable,
        TierName::BestEffort => Tier::BestEffort,
    }
}

fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Guaranteed => "guaranteed",
        Tier::Burstable => "burstable",
        Tier::BestEffort => "best-effort",
    }
}

/// A table of what holds, and what of it was set here.
fn print(share: &Share) {
    println!("{}", title(&share.subject));
    let (set, holds) = (&share.settings, &share.effective);
    let mut rows = table(&["", "holds", "set here"]);
    let mut row = |name: &str, holds: Option<String>, is_set: bool| {
        rows.add_row([name, holds.as_deref().unwrap_or("unlimited"), if is_set { "yes" } else { "" }]);
    };
    let of_organisation = share.subject.kind == ShareKind::Organisation;
    if let Some(organisation) = &set.organisation {
        row("organisation", Some(organisation.to_string()), true);
    }
    row("weight", Some(holds.weight.to_string()), set.weight.is_some());
    if !of_organisation {
        row("tier", Some(tier_name(holds.tier).to_owned()), set.tier.is_some());
        let reservation = holds.reservation.map_or_else(|| "none".to_owned(), device_text);
        row("reservation", Some(reservation), set.reservation.is_some());
    }
    row("device time", holds.device_time.map(device_text), set.device_time.is_some());
    if !of_organisation {
        row("requests", holds.request_rate.map(rate_text), set.request_rate.is_some());
        row("in flight", holds.max_requests.map(|max| max.to_string()), set.max_requests.is_some());
    }
    row("waiting", holds.max_queued_tasks.map(|max| max.to_string()), set.max_queued_tasks.is_some());
    row("waiting data", holds.max_queued_bytes.map(size), set.max_queued_bytes.is_some());
    if !of_organisation {
        row("body", holds.max_body_bytes.map(size), set.max_body_bytes.is_some());
        row("bodies", holds.max_bodies_bytes.map(size), set.max_bodies_bytes.is_some());
        row("kept answers", holds.max_cache_bytes.map(size), set.max_cache_bytes.is_some());
        let slots = holds.slot_group.clone().unwrap_or_else(|| "everybody's".to_owned());
        row("slots", Some(slots), set.slot_group.is_some());
        let together = if holds.batch_with_others { "with other tenants" } else { "apart" };
        row("batches", Some(together.to_owned()), set.batch_with_others.is_some());
        let (worker, own) = (holds.worker.unwrap_or_default(), set.worker.unwrap_or_default());
        let server = || Some("the server's".to_owned());
        row("worker memory", worker.memory_bytes.map(size).or_else(server), own.memory_bytes.is_some());
        let processes = worker.max_processes.map(|most| most.to_string());
        row("worker processes", processes.or_else(server), own.max_processes.is_some());
        let cpus = worker.max_cpus.map(|cpus| cpus.to_string());
        row("worker processors", cpus.or_else(server), own.max_cpus.is_some());
    }
    print_table(&rows, "");
}

fn title(subject: &ShareSubject) -> String {
    let tenant = subject.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
    let organisation = || subject.organisation.as_ref().map(ToString::to_string).unwrap_or_default();
    match subject.kind {
        ShareKind::Organisation => format!("organisation {}", organisation()),
        ShareKind::Tenant => format!("tenant {tenant}"),
        ShareKind::Deployment => format!("tenant {tenant} calling {}", subject.model.as_deref().unwrap_or_default()),
        ShareKind::Key => {
            format!("tenant {tenant} with {}", subject.key.map(|key| key.to_string()).unwrap_or_default())
        }
    }
}

fn device_text(time: DeviceTime) -> String {
    let burst = time.burst_ms.map(|burst_ms| format!(", {} at once", span(Duration::from_millis(burst_ms))));
    format!("{} slots{}", time.slots, burst.unwrap_or_default())
}

fn rate_text(rate: RequestRate) -> String {
    let burst = rate.burst.map(|burst| format!(", {burst} at once"));
    format!("{} a second{}", rate.per_second, burst.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let now = ShareSettings { weight: Some(2.0), max_requests: Some(5), ..ShareSettings::default() };
        let none = Limits::default();
        assert_eq!(changed(now.clone(), &none), now);
        let some = Limits { reserve: Some(0.25), unset: vec![LimitName::Weight], ..Limits::default() };
        let then = changed(now.clone(), &some);
        assert_eq!((then.weight, then.max_requests), (None, Some(5)));
        assert_eq!(then.reservation, Some(DeviceTime { slots: 0.25, burst_ms: None }));
        let reset = Limits { reset: true, weight: Some(3.0), ..Limits::default() };
        assert_eq!(changed(now, &reset), ShareSettings { weight: Some(3.0), ..ShareSettings::default() });
    }
}
