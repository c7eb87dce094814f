//! What would come of a workload under a configuration: a recorded trace, replayed against the real scheduler.

pub mod tenants;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tenantry_sched::{
    Event, MAX_RESERVED_PER_SLOT, Overcommitted, Policy, Rate, Share, SlotGroup, Subject, Tier, pack,
};
use tenantry_types::OrganisationId;

use crate::picture::{Series, service};
use crate::report::Report;
use crate::scenario::{Arrivals, Fault, ModelPlan, Recorded, Scenario, SlotPlan, Source};
use crate::trace::Trace;
use crate::world::run;
use tenants::{TenantTable, Tenants, TierName};

/// The largest batch of a model of which nothing is said.
const MAX_ROWS: u32 = 32;
/// After the last arrival of the trace.
const LAST: Duration = Duration::from_millis(1);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhatIfError {
    /// There is nothing to replay.
    #[error("the trace has no requests")]
    Nothing,
    /// Nobody knows what a model costs.
    #[error(
        "no request to `{model}` was answered in the trace, so its cost is unknown: give it in the tenants file, \
         [models.\"{model}\"] fixed = \"2ms\", per_row = \"1ms\""
    )]
    Cost {
        /// Which.
        model: String,
    },
    /// A tenant names what the file does not have.
    #[error("tenant `{tenant}` names {kind} `{name}`, which the tenants file does not have")]
    Unknown {
        /// Who.
        tenant: String,
        /// A group, or an organisation.
        kind: &'static str,
        /// Which.
        name: String,
    },
    /// There are no slots.
    #[error("[slots] count is 0: there is nothing to run on")]
    NoSlots,
    /// The reservations cannot all be kept.
    #[error("{0}")]
    Overcommitted(#[from] Overcommitted),
}

/// What the command line says over the file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// Slots everybody uses.
    pub slots: Option<u16>,
    /// The policy.
    pub policy: Option<Policy>,
    /// How much faster than recorded requests come; 0: as recorded.
    pub speed: f64,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// Under which policy.
    pub policy: Policy,
    /// On how many slots.
    pub slots: usize,
    /// For how long requests came, seconds.
    pub seconds: f64,
    /// The part of the slots' time that was used.
    pub utilisation: f64,
    /// Requests of a batch.
    pub mean_batch: f64,
    /// The part of the device time that went into answers after their deadline.
    pub late_device_time: f64,
    /// Times a batch was suspended for a reservation.
    pub suspensions: u64,
    /// Tenant by tenant, by name.
    pub tenants: Vec<TenantAnswer>,
    #[serde(skip)]
    report: Report,
}

/// One tenant's part of it. Shares are slots: device time over time.
#[derive(Debug, Clone, Serialize)]
pub struct TenantAnswer {
    /// Its name.
    pub tenant: String,
    /// Its tier.
    pub tier: &'static str,
    /// What it is promised while everybody has work: its reservation or its weight's part, whichever is more.
    pub promised: f64,
    /// What its requests would have taken one by one.
    pub asked: f64,
    /// What it received.
    pub received: f64,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// The middle latency, milliseconds.
    pub p50_ms: f64,
    /// What 99 in 100 do not exceed, milliseconds.
    pub p99_ms: f64,
    /// Requests that were not answered by their deadline: late, or given up in the queue.
    pub missed: u64,
    /// Requests refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Requests that failed.
    pub failed: u64,
}

impl Answer {
    /// A picture of it.
    pub fn picture(&self) -> String {
        let series = self.report.tenants.iter();
        let series: Vec<Series> =
            series.map(|one| Series { name: one.name.clone(), service_ns: one.service_ns.clone() }).collect();
        let plural = if self.slots == 1 { "" } else { "s" };
        let title = format!("Service under {} on {} slot{plural}", self.policy.as_str(), self.slots);
        service(&title, &series, Duration::from_secs_f64(self.seconds), self.slots)
    }

    /// What must not be: anything here is a fault of the scheduler or of the simulator.
    pub fn faults(&self) -> &[String] {
        &self.report.faults
    }
}

/// Replays a trace.
///
/// # Errors
/// [`WhatIfError`] where the file and the trace do not go together.
pub fn ask(trace: &Trace, tenants: &Tenants, overrides: Overrides) -> Result<Answer, WhatIfError> {
    let world = scenario(trace, tenants, overrides)?;
    let report = run(&world, &mut []);
    let seconds = report.counted.as_secs_f64();
    let promised = promises(&world, &trace.tenants, tenants);
    let mut answers: Vec<TenantAnswer> = report
        .tenants
        .iter()
        .zip(promised)
        .map(|(one, promised)| TenantAnswer {
            tenant: one.name.clone(),
            tier: tenants.tenants.get(&one.name).map_or(TierName::default(), |table| table.tier).as_str(),
            promised,
            asked: one.asked_ns as f64 / 1e9 / seconds,
            received: one.charged_ns as f64 / 1e9 / seconds,
            sent: one.sent,
            answered: one.answered,
            p50_ms: one.quantile(0.5).as_secs_f64() * 1e3,
            p99_ms: one.quantile(0.99).as_secs_f64() * 1e3,
            missed: one.missed(),
            refused: one.refused.clone(),
            failed: one.failed,
        })
        .collect();
    answers.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    Ok(Answer {
        policy: world.config.policy,
        slots: report.slots,
        seconds,
        utilisation: report.utilisation(),
        mean_batch: report.mean_batch(),
        late_device_time: report.late_part(),
        suspensions: report.suspensions,
        tenants: answers,
        report,
    })
}

/// The world a trace and a file describe.
///
/// # Errors
/// [`WhatIfError`] where they do not go together.
pub fn scenario(trace: &Trace, file: &Tenants, overrides: Overrides) -> Result<Scenario, WhatIfError> {
    let speed = if overrides.speed > 0.0 { overrides.speed } else { 1.0 };
    let last = trace.requests.last().ok_or(WhatIfError::Nothing)?.at.div_f64(speed);
    let common = usize::from(overrides.slots.unwrap_or(file.slots.count));
    if common == 0 {
        return Err(WhatIfError::NoSlots);
    }
    let mut world = Scenario::new(overrides.policy.unwrap_or(file.scheduler.policy), common);
    world.duration = last + LAST;
    // Bounds as a server has them by default.
    world.config.max_queued_tasks = 10_000;
    world.config.max_queued_tasks_per_tenant = 1_000;
    if let Some(quantum) = file.scheduler.quantum {
        world.config.tuning.quantum = quantum.0;
    }
    if let Some(window) = file.scheduler.window {
        world.config.tuning.window = window.0;
    }
    if let Some(window) = file.scheduler.fill_window {
        world.config.tuning.fill_window = window.0;
    }
    for slot in &mut world.slots {
        slot.suspendable = file.slots.suspend;
    }
    for (number, &count) in (1..).zip(file.slots.groups.values()) {
        let slot = SlotPlan { group: SlotGroup(number), suspendable: file.slots.suspend };
        world.slots.extend(std::iter::repeat_n(slot, usize::from(count)));
    }
    add_tenants(&mut world, trace, file)?;
    check_reservations(&world)?;
    let costs = add_models(&mut world, trace, file)?;
    let mut replays: BTreeMap<usize, Vec<Recorded>> = BTreeMap::new();
    for request in &trace.requests {
        let given = costs.get(request.model).copied().flatten();
        let per_row = given.unwrap_or_default();
        let measured = request.device.filter(|_| file_cost(trace, file, request.model).is_none());
        replays.entry(request.tenant).or_default().push(Recorded {
            at: request.at.div_f64(speed),
            model: request.model,
            rows: request.rows,
            bucket: request.bucket,
            bytes: request.bytes,
            timeout: request.timeout,
            work: Some(measured.unwrap_or_else(|| per_row.saturating_mul(request.rows.max(1)))),
        });
    }
    for (tenant, replay) in replays {
        world.sources.push(Source::new(tenant, 0, Arrivals::Replay(Arc::new(replay))));
    }
    Ok(world)
}

fn file_cost<'a>(trace: &Trace, file: &'a Tenants, model: usize) -> Option<&'a tenants::ModelTable> {
    let table = file.models.get(trace.models.get(model)?)?;
    (table.fixed.is_some() || table.per_row.is_some()).then_some(table)
}

fn add_tenants(world: &mut Scenario, trace: &Trace, file: &Tenants) -> Result<(), WhatIfError> {
    let unnamed = TenantTable::default();
    for name in &trace.tenants {
        let table = file.tenants.get(name).unwrap_or(&unnamed);
        let unknown = |kind, of: &String| WhatIfError::Unknown { tenant: name.clone(), kind, name: of.clone() };
        let group = match &table.group {
            None => SlotGroup::default(),
            Some(group) => {
                let number = file.slots.groups.keys().position(|known| known == group);
                let number = number.and_then(|number| u32::try_from(number + 1).ok());
                SlotGroup(number.ok_or_else(|| unknown("the group", group))?)
            }
        };
        let organisation = match &table.organisation {
            None => None,
            Some(organisation) => {
                let number = file.organisations.keys().position(|known| known == organisation);
                Some(organisation_id(number.ok_or_else(|| unknown("the organisation", organisation))?))
            }
        };
        let tenant = world.tenant(
            name.clone(),
            Share {
                organisation,
                weight: table.weight.map(|weight| weight.weight()).unwrap_or_default(),
                tier: Some(table.tier.tier()),
                reservation: table.reservation(),
                limit: table.limit(),
                max_queued_tasks: table.max_queued_tasks,
                max_queued_bytes: None,
                group,
            },
        );
        if let (Some(chosen), Some(plan)) = (table.batch_with_others, world.tenants.get_mut(tenant)) {
            plan.batch_with_others = chosen;
        }
    }
    for (number, table) in file.organisations.values().enumerate() {
        let share =
            Share { weight: table.weight.map(|weight| weight.weight()).unwrap_or_default(), ..Share::default() };
        let event = Event::Share { subject: Subject::Organisation(organisation_id(number)), share: Some(share) };
        world.faults.push(Fault::Told { at: Duration::ZERO, event });
    }
    Ok(())
}

/// The same check as a server makes when a reservation is set.
fn check_reservations(world: &Scenario) -> Result<(), WhatIfError> {
    let mut by_group: BTreeMap<SlotGroup, Vec<Rate>> = BTreeMap::new();
    for tenant in &world.tenants {
        if let Some(reservation) = tenant.share.reservation {
            by_group.entry(tenant.share.group).or_default().push(reservation.rate);
        }
    }
    let floor = world.config.tuning.best_effort_floor.ppm();
    let most = Rate::from_ppm(MAX_RESERVED_PER_SLOT.ppm().saturating_sub(floor));
    for (group, rates) in by_group {
        let slots = world.slots.iter().filter(|slot| slot.group == group).count();
        pack(&rates, u32::try_from(slots).unwrap_or(u32::MAX), most)?;
    }
    Ok(())
}

/// Adds the models; answers the time of a row of each, where it is known.
fn add_models(world: &mut Scenario, trace: &Trace, file: &Tenants) -> Result<Vec<Option<Duration>>, WhatIfError> {
    let mut measured: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for request in &trace.requests {
        if let Some(device) = request.device {
            let nanos = u64::try_from(device.as_nanos()).unwrap_or(u64::MAX);
            measured.entry(request.model).or_default().push(nanos / u64::from(request.rows.max(1)));
        }
    }
    let mut costs = Vec::with_capacity(trace.models.len());
    for (number, name) in trace.models.iter().enumerate() {
        let given = file_cost(trace, file, number);
        // The parts of batches are what was measured: what joining saves is in them already, so nothing is fixed.
        let median = measured.get_mut(&number).and_then(|all| {
            all.sort_unstable();
            all.get(all.len() / 2).copied().map(Duration::from_nanos)
        });
        let (fixed, per_row) = match (given, median) {
            (Some(table), _) => {
                let span = |span: Option<tenants::Span>| span.map_or(Duration::ZERO, |span| span.0);
                (span(table.fixed), span(table.per_row))
            }
            (None, Some(median)) => (Duration::ZERO, median),
            (None, None) => return Err(WhatIfError::Cost { model: name.clone() }),
        };
        let max_rows = file.models.get(name).and_then(|table| table.max_rows).unwrap_or(MAX_ROWS);
        let _ = world.model(ModelPlan::new(name.clone(), fixed, per_row, max_rows));
        costs.push(Some(per_row));
    }
    Ok(costs)
}

/// What each tenant is promised while everybody has work, slots.
fn promises(world: &Scenario, names: &[String], file: &Tenants) -> Vec<f64> {
    let weight = |share: &Share| f64::from(share.weight.milli());
    let is_weighed = |share: &Share| share.tier != Some(Tier::BestEffort);
    let organisation_weight = |organisation: &String| {
        let table = file.organisations.get(organisation);
        f64::from(table.and_then(|table| table.weight).map(|weight| weight.weight()).unwrap_or_default().milli())
    };
    let of = |name: &String| file.tenants.get(name).and_then(|table| table.organisation.clone());
    let part = |number: usize, share: &Share| -> f64 {
        let slots = world.slots.iter().filter(|slot| slot.group == share.group).count() as f64;
        let in_group = || world.tenants.iter().zip(names).filter(|(one, _)| one.share.group == share.group);
        if !is_weighed(share) {
            let others = in_group().filter(|(one, _)| !is_weighed(&one.share));
            let all: f64 = others.map(|(one, _)| weight(&one.share)).sum();
            let floor = f64::from(world.config.tuning.best_effort_floor.ppm()) / 1e6;
            return slots * floor * weight(share) / all.max(1.0);
        }
        let weighed = || in_group().filter(|(one, _)| is_weighed(&one.share));
        let mut organisations: BTreeMap<String, f64> = BTreeMap::new();
        let mut all = 0.0;
        for (one, name) in weighed() {
            match of(name) {
                None => all += weight(&one.share),
                Some(organisation) => *organisations.entry(organisation).or_default() += weight(&one.share),
            }
        }
        all += organisations.keys().map(organisation_weight).sum::<f64>();
        match names.get(number).and_then(of) {
            None => slots * weight(share) / all,
            Some(organisation) => {
                let within = organisations.get(&organisation).copied().unwrap_or(1.0);
                slots * organisation_weight(&organisation) / all * weight(share) / within
            }
        }
    };
    let reserved = |share: &Share| share.reservation.map_or(0.0, |of| f64::from(of.rate.ppm()) / 1e6);
    world
        .tenants
        .iter()
        .enumerate()
        .map(|(number, tenant)| part(number, &tenant.share).max(reserved(&tenant.share)))
        .collect()
}

fn organisation_id(number: usize) -> OrganisationId {
    let mut bytes = [0; 10];
    if let Some(last) = bytes.last_mut() {
        *last = u8::try_from(number % 256).unwrap_or(0);
    }
    OrganisationId::from_parts(number as u64, bytes)
}

#[cfg(test)]
mod tests;
