//! From desired to observed: the only place that starts, loads, unloads or stops anything for serving.
//!
//! It waits for a change on either side or for the time the last plan named, plans, and carries the steps out. Steps that
//! are under way show in what the node observes, so planning again adds nothing to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tenantry_node::{ModelFile, ModelFiles, RuntimeInfo};
use tenantry_plan::{Desired, DesiredDeployment, Observed, PlanLimits, Quarantine, Step};
use tenantry_store::{ReadError, StoredFile};
use tenantry_types::model::EngineOptions;
use tenantry_types::{Digest, MonotonicTime, ReplicaId, TenantId, TrustDomain, VersionId, WorkerId};
use tenantry_wire::ModelForm;

use crate::Server;
use crate::routing::{RoutedModel, RoutedState, Routing, Servable};

/// How long a version that was asked for by number or alias, and is not deployed, stays loaded without requests.
const UNDEPLOYED_IDLE: Duration = Duration::from_secs(60);
/// The pause after files that could not be opened; doubles up to [`MAX_FILES_RETRY`].
const MIN_FILES_RETRY: Duration = Duration::from_secs(1);
/// The longest pause after files that could not be opened.
const MAX_FILES_RETRY: Duration = Duration::from_secs(60);

/// Where every version of the routing table is.
type ByVersion = HashMap<VersionId, (Arc<RoutedModel>, u32)>;

/// Versions whose files could not be opened, and when to try again. Bounded by the versions there are.
#[derive(Debug, Default)]
struct Unopened(HashMap<VersionId, (MonotonicTime, Duration)>);

/// Runs for as long as the server does.
pub(crate) async fn run(server: Arc<Server>) {
    let mut changes = server.node.changes();
    let mut routed = server.routed.subscribe();
    let mut unopened = Unopened::default();
    let limits = PlanLimits { max_workers: server.limits.max_workers, worker_idle: server.limits.worker_idle };
    let mut by_version: (u64, ByVersion) = (u64::MAX, HashMap::new());
    loop {
        // Marked before looking: what changes from here on ends the wait below at once.
        changes.mark_unchanged();
        routed.mark_unchanged();
        let routing = server.routing.load_full();
        if by_version.0 != routing.revision {
            by_version = (routing.revision, index(&routing));
            unopened.0.retain(|version, _| by_version.1.contains_key(version));
        }
        let mut observed = server.node.observe();
        let now = server.node.now();
        observed.quarantined.extend(unopened.in_force(now));
        observed.quarantined.extend(server.held_back(&routing));
        let let_go = server.let_go.lock().clone();
        let desired = desired(&routing, &by_version.1, &observed, server.is_ready(), let_go);
        let plan = tenantry_plan::plan(now, &desired, &observed, &limits);
        if !plan.steps.is_empty() {
            tracing::debug!(generation = plan.generation, steps = ?plan.steps, "carrying out a plan");
        }
        for step in plan.steps {
            server.carry_out(step, &by_version.1, &mut unopened).await;
        }
        let wake = plan.wake.map(|wake| wake.saturating_since(server.node.now()));
        tokio::select! {
            Ok(()) = changes.changed() => {}
            Ok(()) = routed.changed() => {}
            () = tokio::time::sleep(wake.unwrap_or(Duration::MAX)), if wake.is_some() => {}
            else => return,
        }
    }
}

fn index(routing: &Routing) -> ByVersion {
    let all = routing.models().flat_map(|model| {
        model.versions.values().map(move |version| (version.id, (Arc::clone(model), version.number)))
    });
    all.collect()
}

/// What the deployments ask for, and which other ready versions are being asked for by number or alias.
///
/// A server that drains keeps nothing loaded for its own sake, but still serves what waits.
fn desired(
    routing: &Routing,
    by_version: &ByVersion,
    observed: &Observed,
    keep_minimum: bool,
    let_go: Vec<ReplicaId>,
) -> Desired {
    let mut deployments: Vec<DesiredDeployment> = routing
        .models()
        .filter_map(|model| {
            let version = model.deployed().filter(|version| version.is_loadable())?;
            let deployment = &model.deployment;
            Some(DesiredDeployment {
                deployment: deployment.id,
                generation: deployment.generation,
                version: version.id,
                owner: model.owner.id,
                any_data: model.serves_any_data(),
                min_replicas: if keep_minimum { deployment.min_replicas } else { 0 },
                max_replicas: deployment.max_replicas,
                idle_after: deployment.idle_after,
            })
        })
        .collect();
    let mut others: Vec<VersionId> = observed.demand.iter().map(|demand| demand.version).collect();
    others.extend(observed.replicas.iter().map(|replica| replica.version));
    others.sort_unstable();
    others.dedup();
    for id in others {
        let Some((model, number)) = by_version.get(&id) else { continue };
        let is_ready = model.versions.get(number).is_some_and(|version| version.is_loadable());
        if !is_ready || model.deployment.version == Some(*number) {
            continue;
        }
        deployments.push(DesiredDeployment {
            deployment: model.deployment.id,
            generation: model.deployment.generation,
            version: id,
            owner: model.owner.id,
            any_data: model.serves_any_data(),
            min_replicas: 0,
            max_replicas: model.deployment.max_replicas,
            idle_after: Some(model.deployment.idle_after.map_or(UNDEPLOYED_IDLE, |idle| idle.min(UNDEPLOYED_IDLE))),
        });
    }
    Desired { generation: routing.revision, deployments, let_go }
}

impl Server {
    async fn carry_out(&self, step: Step, by_version: &ByVersion, unopened: &mut Unopened) {
        match step {
            Step::StartWorker { domain } => {
                self.node.start_worker(domain);
            }
            Step::StopWorker { worker } => self.node.stop_worker(worker),
            Step::Unload { replica } => self.node.unload(replica),
            Step::Load { worker, version, domain } => {
                let servable = by_version.get(&version).and_then(|(model, number)| {
                    let RoutedState::Ready(servable) = &model.versions.get(number)?.state else { return None };
                    Some((model.owner.id, servable))
                });
                // A version that was deleted since the plan was made needs nothing.
                let Some((owner, servable)) = servable else { return };
                match self.load(worker, owner, servable, domain).await {
                    Ok(()) => unopened.succeeded(version),
                    Err(error) => {
                        let retry = unopened.failed(version, self.node.now());
                        tracing::error!(
                            model = servable.spec.name,
                            error = &error as &dyn std::error::Error,
                            retry_ms = retry.as_millis() as u64,
                            "a model's files cannot be opened"
                        );
                    }
                }
            }
        }
    }

    async fn load(
        &self,
        worker: WorkerId,
        owner: TenantId,
        servable: &Servable,
        domain: TrustDomain,
    ) -> Result<(), ReadError> {
        let placement = self.node.placement(&servable.spec, domain);
        let model = match self.open_optimised(owner, servable).await {
            Some(model) => model,
            None => ModelFiles {
                form: ModelForm::Source,
                files: self.open_files(owner, &servable.files).await?,
                options: servable.options.clone(),
            },
        };
        self.node.load(worker, placement, model);
        Ok(())
    }

    /// The optimised form, if it was made by this runtime for this processor and can be opened.
    async fn open_optimised(&self, owner: TenantId, servable: &Servable) -> Option<ModelFiles> {
        let optimised = servable.optimised.as_ref()?;
        let runtime = self.node.runtime()?;
        if optimised.key != optimised_key(&servable.digest, &runtime, &servable.options) {
            return None;
        }
        let file = match self.store.open_optimised(owner, optimised).await {
            Ok(file) => file.into_shared(),
            Err(error) => {
                tracing::warn!(
                    model = servable.spec.name,
                    error = &error as &dyn std::error::Error,
                    "an optimised form cannot be opened; loading the model as uploaded"
                );
                return None;
            }
        };
        let name = servable.files.first().map_or_else(String::new, |model| model.name.clone());
        let mut files = vec![ModelFile { name, file, bytes: optimised.bytes }];
        // The optimised form is the model alone.
        files.extend(self.open_files(owner, &servable.pipeline_files()).await.ok()?);
        Some(ModelFiles { form: ModelForm::Optimised, files, options: servable.options.clone() })
    }

    /// A version's files as read-only descriptors, the model first.
    pub(crate) async fn open_files(&self, owner: TenantId, files: &[StoredFile]) -> Result<Vec<ModelFile>, ReadError> {
        let mut opened = Vec::with_capacity(files.len());
        for stored in files {
            let file = self.store.open_artefact(owner, stored.digest).await?.into_shared();
            opened.push(ModelFile { name: stored.name.clone(), file, bytes: stored.bytes });
        }
        Ok(opened)
    }
}

impl Unopened {
    fn failed(&mut self, version: VersionId, now: MonotonicTime) -> Duration {
        let pause =
            self.0.get(&version).map_or(MIN_FILES_RETRY, |(_, last)| last.saturating_mul(2).min(MAX_FILES_RETRY));
        self.0.insert(version, (now.saturating_add(pause), pause));
        pause
    }

    fn succeeded(&mut self, version: VersionId) {
        self.0.remove(&version);
    }

    fn in_force(&self, now: MonotonicTime) -> impl Iterator<Item = Quarantine> {
        let waiting = self.0.iter().filter(move |(_, (until, _))| *until > now);
        waiting.map(|(version, (until, _))| Quarantine { version: *version, domain: None, until: *until })
    }
}

/// What an optimised form was made from and for. It is of use only where all of it is the same.
///
/// How its runs are to go (threads, packed weights) is measured anew by each registration and is not in it: the file is the
/// same whatever came out.
pub(crate) fn optimised_key(version: &Digest, runtime: &RuntimeInfo, options: &EngineOptions) -> String {
    let EngineOptions { optimization, disabled_optimizers, threads: _, prepack: _ } = options;
    // Plain values, so they always have a text.
    let rewrites = serde_json::to_string(&(optimization, disabled_optimizers)).unwrap_or_default();
    format!("{version}/{}/{}/{rewrites}", runtime.version, runtime.cpu)
}

#[cfg(test)]
mod tests;
