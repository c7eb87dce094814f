//! Registration: every version that is in the state `registering` is looked at by a worker, once, until it is ready or
//! refused.
//!
//! The queue is the store itself: what a server that died had not finished is found again at the next start. Claims of the
//! worker are checked here before they become truth.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tenantry_node::{LoadFor, Meter, RegisterError, RegisterRequest, Shortfall};
use tenantry_store::{ReadError, Thing, UploadError, VersionState, WriteError};
use tenantry_types::error::sanitise;
use tenantry_types::limits::{
    MAX_ARCHIVE_FILES, MAX_ENGINE_MESSAGE_CHARS, MAX_STATE_BYTES, MAX_TENSOR_NAME_BYTES, MAX_TENSORS,
};
use tenantry_types::model::{FileMetadata, Registration, StateFact};
use tenantry_types::tensor::{MAX_RANK, element_count};
use tenantry_types::usage::{Outcome, UsageKind};
use tenantry_types::{Dim, ErrorCode, ModelRef, Signature, TensorSpec, VersionId};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use crate::Server;
use crate::reconciler::optimised_key;
use crate::routing::{RoutedModel, RoutedState, Routing};
use crate::run::value_of;
use crate::server::is_temporary;

/// The pause after a registration that could not run; doubles up to [`MAX_RETRY`].
const MIN_RETRY: Duration = Duration::from_secs(1);
/// The longest pause after a registration that could not run.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// How often a version may end its worker before it is refused. One death may be the machine's fault, e.g. its memory's.
const MAX_DEATHS: u32 = 2;
/// A worker that ended after this long is not the machine's fault: most likely the model has no end. No second try.
const LONG_TRY: Duration = Duration::from_secs(20);
/// An optimised form may be larger than its source, within reason.
const OPTIMISED_BYTES_FACTOR: u64 = 2;
/// The most custom pairs of a file's metadata that are kept.
const MAX_CUSTOM_PAIRS: usize = 64;
/// The most batch sizes of a profile that are kept.
const MAX_POINTS: usize = 32;
/// The most threads a version may run with.
const MAX_THREADS: u16 = 256;

/// The versions to be registered, oldest first.
pub(crate) fn waiting(routing: &Routing) -> Vec<(VersionId, Arc<RoutedModel>)> {
    let mut waiting: Vec<_> = routing
        .models()
        .flat_map(|model| {
            let registering =
                model.versions.values().filter(|version| matches!(version.state, RoutedState::Registering));
            registering.map(|version| (version.id, Arc::clone(model)))
        })
        .collect();
    waiting.sort_unstable_by_key(|(id, _)| *id);
    waiting
}

/// Why a registration did not end.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("the files cannot be read")]
    Files(#[from] ReadError),
    #[error("the optimised form cannot be kept")]
    Optimised(#[from] UploadError),
    #[error("the outcome cannot be written")]
    Write(#[from] WriteError),
    #[error("no worker could take it")]
    Busy,
    #[error("{0}")]
    BelowMinimum(Shortfall),
    #[error("its worker ended: {0}")]
    Ended(String),
    #[error("the routing table does not show the outcome yet")]
    Stale,
}

/// A version that is to be tried again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
    deaths: u32,
}

/// Runs for as long as the server does.
pub(crate) async fn run(server: Arc<Server>) {
    let mut routed = server.routed.subscribe();
    let mut running: JoinSet<Result<(), Unfinished>> = JoinSet::new();
    let mut busy: HashMap<task::Id, VersionId> = HashMap::new();
    let mut retries: HashMap<VersionId, Retry> = HashMap::new();
    loop {
        routed.mark_unchanged();
        let waiting = waiting(&server.routing.load());
        retries.retain(|version, _| waiting.iter().any(|(id, _)| id == version));
        let now = Instant::now();
        // A server that drains begins nothing.
        let room = if server.is_ready() { server.limits.max_registrations as usize } else { 0 };
        let mut look_again = None;
        for (version, model) in &waiting {
            if server.node.shortfall(model.demanded()).is_some() {
                // Looked at again when the table changes; the barriers may, too, when the spawner was replaced.
                look_again = Some(now + MAX_RETRY);
                continue;
            }
            let retry = retries.get(version);
            if running.len() >= room {
                break;
            }
            if busy.values().any(|known| known == version) || retry.is_some_and(|retry| retry.at > now) {
                continue;
            }
            let (server, version, model) = (Arc::clone(&server), *version, Arc::clone(model));
            let deaths = retry.map_or(0, |retry| retry.deaths);
            let task = running.spawn(async move { server.register(version, &model, deaths).await });
            busy.insert(task.id(), version);
        }
        let next = retries.iter().filter(|(version, _)| !busy.values().any(|known| known == *version));
        let next = next.map(|(_, retry)| retry.at).chain(look_again).min().filter(|_| running.len() < room);
        let (task, outcome) = tokio::select! {
            Ok(()) = routed.changed() => continue,
            () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => continue,
            Some(joined) = running.join_next_with_id() => match joined {
                Ok((task, outcome)) => (task, outcome),
                Err(error) => (error.id(), Err(Unfinished::Ended("the server failed over it".to_owned()))),
            },
            else => return,
        };
        let Some(version) = busy.remove(&task) else { continue };
        match outcome {
            Ok(()) => {
                retries.remove(&version);
            }
            Err(error) => {
                let retry = next_try(retries.get(&version).copied(), &error);
                let retry_ms = retry.pause.as_millis() as u64;
                tracing::warn!(%version, %error, source = ?error.source(), retry_ms, "a registration did not finish");
                server.metrics.registered("retried");
                retries.insert(version, retry);
            }
        }
    }
}

fn next_try(last: Option<Retry>, error: &Unfinished) -> Retry {
    let pause = last.map_or(MIN_RETRY, |last| last.pause.saturating_mul(2).min(MAX_RETRY));
    let deaths = last.map_or(0, |last| last.deaths) + u32::from(matches!(error, Unfinished::Ended(_)));
    Retry { at: Instant::now() + pause, pause, deaths }
}

impl Server {
    /// Registers one version: `Ok` when nothing is left to do for it, whatever the outcome was.
    async fn register(&self, id: VersionId, model: &RoutedModel, deaths: u32) -> Result<(), Unfinished> {
        let version = match self.store.version(id).await {
            Ok(version) if version.state == VersionState::Registering => version,
            // Deleted, or finished by somebody else: the next routing table shows it.
            Ok(_) | Err(ReadError::NotFound(_)) => return self.see_outcome().await,
            Err(error) => return Err(error.into()),
        };
        let owner = model.owner.id;
        let files = self.open_files(owner, &version.files).await?;
        let account = self
            .account_of(UsageKind::Registration, &LoadFor { tenant: owner, deployment: None, key: None, version: id });
        let meter = account.clone().map(|account| account as Arc<dyn Meter>);
        let request = RegisterRequest { owner, version: id, files, settings: version.settings.clone(), meter };
        let began = Instant::now();
        let registered = self.node.register(request).await;
        if let Some(account) = account {
            match &registered {
                Ok(_) => account.ended(Outcome::Ok),
                Err(RegisterError::Refused(_) | RegisterError::Ended(_)) => account.ended(Outcome::Failed),
                Err(RegisterError::Busy | RegisterError::BelowMinimum(_)) => account.forget(),
            }
        }
        let registered = match registered {
            Ok(registered) => registered,
            Err(RegisterError::BelowMinimum(shortfall)) => return Err(Unfinished::BelowMinimum(shortfall)),
            Err(RegisterError::Refused(reason)) => return self.refuse(id, &reason).await,
            // A server that drains ends its workers, as does a minimum that is raised; that says nothing about the file.
            Err(RegisterError::Ended(_)) if !self.is_ready() || self.is_held_back(id) => return Err(Unfinished::Busy),
            Err(RegisterError::Ended(reason)) if deaths + 1 >= MAX_DEATHS || began.elapsed() >= LONG_TRY => {
                return self.refuse(id, &reason).await;
            }
            Err(RegisterError::Ended(reason)) => return Err(Unfinished::Ended(reason)),
            Err(RegisterError::Busy) => return Err(Unfinished::Busy),
        };
        let flow = self.metrics.flow(owner, model.owner.name.as_str(), &model.full_name);
        flow.used(registered.device_time);
        let chained = match chained(&self.routing.load(), model, registered.registration) {
            Ok(registration) => registration,
            Err(Unchained::Later) => return Err(Unfinished::Busy),
            Err(Unchained::Never(reason)) => return self.refuse(id, &reason).await,
        };
        let registration = match checked(chained) {
            Ok(registration) => registration,
            Err(reason) => return self.refuse(id, &reason).await,
        };
        let runtime = self.node.runtime().filter(|_| registered.optimised_bytes > 0);
        let optimised = match runtime {
            Some(runtime) => {
                let key = optimised_key(&version.digest, &runtime, &registration.profile.options);
                let limit_bytes = self.limits.max_model_bytes.saturating_mul(OPTIMISED_BYTES_FACTOR);
                Some(self.store.put_optimised(owner, &key, registered.optimised, limit_bytes).await?)
            }
            None => None,
        };
        match self.store.finish_version(id, &registration, optimised.as_ref()).await {
            Ok(_) => {
                tracing::info!(version = %id, model = &*model.full_name, number = version.number, "a version is ready");
                self.metrics.registered("ready");
            }
            // Its form went with the last version that had it, between the two calls: made again, it stays.
            Err(error @ WriteError::NotFound(Thing::Artefact)) => return Err(error.into()),
            Err(error) if is_temporary(&error) => return Err(error.into()),
            Err(error) => tracing::info!(version = %id, %error, "a registered version is not wanted any more"),
        }
        self.see_outcome().await
    }

    /// Whether the version may not be loaded as things are.
    fn is_held_back(&self, id: VersionId) -> bool {
        self.held_back(&self.routing.load()).any(|held| held.version == id)
    }

    async fn refuse(&self, id: VersionId, reason: &str) -> Result<(), Unfinished> {
        match self.store.refuse_version(id, &sanitise(reason, MAX_ENGINE_MESSAGE_CHARS)).await {
            Ok(_) => {
                tracing::info!(version = %id, reason, "a version was refused");
                self.metrics.registered("refused");
            }
            Err(error) if is_temporary(&error) => return Err(error.into()),
            Err(error) => tracing::info!(version = %id, %error, "a refused version is not wanted any more"),
        }
        self.see_outcome().await
    }

    async fn see_outcome(&self) -> Result<(), Unfinished> {
        self.refresh().await.map_err(|_| Unfinished::Stale)
    }
}

/// Why a chain cannot be put together.
enum Unchained {
    /// A version it names is still being registered.
    Later,
    /// It names what there is not, or what does not fit. The text is for its owner.
    Never(String),
}

/// Finds the versions a chain names, fixes their numbers, and works out what the chain takes and gives. Anything that is
/// no chain stays as it is.
fn chained(routing: &Routing, owner: &RoutedModel, mut registration: Registration) -> Result<Registration, Unchained> {
    let Some(chain) = registration.pipeline.as_mut().and_then(|pipeline| pipeline.chain.as_mut()) else {
        return Ok(registration);
    };
    let mut values: HashMap<String, TensorSpec> = HashMap::new();
    let mut taken: HashMap<String, TensorSpec> = HashMap::new();
    for (number, stage) in (1..).zip(&mut chain.stages) {
        let never = |text: String| Unchained::Never(format!("stage {number}: {text}"));
        let reference: ModelRef = stage
            .model
            .parse()
            .map_err(|_| never("`model` is a model's name, or its owner's name, a slash and its name".to_owned()))?;
        let model =
            routing.model(owner.owner.id, &owner.owner.name, &reference).map_err(|error| never(error.message))?;
        let version = match model.version(stage.version.as_deref(), &reference) {
            Ok(version) => version,
            Err(error) if error.code == ErrorCode::Unavailable => return Err(Unchained::Later),
            Err(error) => return Err(never(error.message)),
        };
        let servable = match version.servable(&reference) {
            Ok(servable) => servable,
            Err(error) if error.code == ErrorCode::Unavailable => return Err(Unchained::Later),
            Err(error) => return Err(never(error.message)),
        };
        if servable.chain().is_some() {
            return Err(never(format!("`{reference}` is a chain itself; name its stages instead")));
        }
        let outward = &servable.outward;
        if let Some((name, _)) = stage.inputs.iter().find(|(name, _)| outward.input_index(name).is_none()) {
            return Err(never(format!("`{reference}` has no input `{}`", sanitise(name, 80))));
        }
        if let Some((name, _)) = stage.outputs.iter().find(|(name, _)| outward.output_index(name).is_none()) {
            return Err(never(format!("`{reference}` has no output `{}`", sanitise(name, 80))));
        }
        for spec in &outward.inputs {
            let value = value_of(&stage.inputs, outward, &spec.name);
            if let Some(made) = values.get(value) {
                if made.datatype != spec.datatype || made.dims.len() != spec.dims.len() {
                    let shown = sanitise(value, 80);
                    return Err(never(format!(
                        "`{shown}` is {} and `{reference}` needs {}",
                        made.datatype, spec.datatype
                    )));
                }
            } else if chain.inputs.iter().any(|input| input == value) {
                let spec = TensorSpec { name: value.to_owned(), ..spec.clone() };
                taken.insert(value.to_owned(), spec.clone());
                values.insert(value.to_owned(), spec);
            } else {
                let shown = sanitise(value, 80);
                return Err(never(format!(
                    "there is no value `{shown}` for the input `{}` of `{reference}`",
                    spec.name
                )));
            }
        }
        for spec in &outward.outputs {
            let value = value_of(&stage.outputs, outward, &spec.name).to_owned();
            // A later stage's output of the same name takes the earlier one's place.
            values.insert(value, spec.clone());
        }
        stage.version = Some(version.number.to_string());
    }
    let input = |name: &String| {
        taken.remove(name).ok_or_else(|| Unchained::Never(format!("no stage reads the input `{}`", sanitise(name, 80))))
    };
    let inputs = chain.inputs.iter().map(input).collect::<Result<Vec<_>, _>>()?;
    let output = |(name, value): &(String, String)| {
        let spec =
            values.get(value).ok_or_else(|| Unchained::Never(format!("no stage makes `{}`", sanitise(value, 80))))?;
        Ok(TensorSpec { name: name.clone(), ..spec.clone() })
    };
    let outputs = chain.outputs.iter().map(output).collect::<Result<Vec<_>, _>>()?;
    registration.signature = Signature { inputs, outputs };
    registration.can_batch = false;
    Ok(registration)
}

/// A worker's claims, checked and cut to size.
fn checked(mut registration: Registration) -> Result<Registration, String> {
    let signature = &registration.signature;
    for (what, tensors) in [("inputs", &signature.inputs), ("outputs", &signature.outputs)] {
        if tensors.len() > MAX_TENSORS {
            return Err(format!("the model has {} {what}; at most {MAX_TENSORS} are supported", tensors.len()));
        }
        let mut names = HashSet::new();
        for tensor in tensors {
            let shown = || sanitise(&tensor.name, 80);
            if tensor.name.is_empty()
                || tensor.name.len() > MAX_TENSOR_NAME_BYTES
                || tensor.name.contains(char::is_control)
            {
                return Err(format!("the name `{}` among the model's {what} is not supported", shown()));
            }
            if tensor.dims.len() > MAX_RANK {
                return Err(format!(
                    "`{}` has {} dimensions; at most {MAX_RANK} are supported",
                    shown(),
                    tensor.dims.len()
                ));
            }
            if !names.insert(tensor.name.as_str()) {
                return Err(format!("the name `{}` occurs twice among the model's {what}", shown()));
            }
        }
    }
    if signature.outputs.is_empty() {
        return Err("the model has no outputs".to_owned());
    }
    if !(1..=MAX_THREADS).contains(&registration.profile.options.threads) {
        return Err(format!("a model runs with 1 to {MAX_THREADS} threads"));
    }
    let clean = |text: &mut String| *text = sanitise(text, MAX_ENGINE_MESSAGE_CHARS);
    let FileMetadata { producer, description, graph_name, custom } = &mut registration.metadata;
    [producer, description, graph_name].into_iter().for_each(clean);
    custom.truncate(MAX_CUSTOM_PAIRS);
    for (name, value) in custom {
        clean(name);
        clean(value);
    }
    clean(&mut registration.profile.runtime);
    if let Some(pipeline) = &registration.pipeline {
        let of_states = |specs: &[TensorSpec]| specs.len().checked_sub(pipeline.states.len());
        let held = of_states(&registration.signature.inputs).and_then(|at| registration.signature.inputs.get(at..));
        let next = of_states(&registration.signature.outputs).and_then(|at| registration.signature.outputs.get(at..));
        let fits = |specs: Option<&[TensorSpec]>| {
            specs.is_some_and(|specs| specs.iter().zip(&pipeline.states).all(|(spec, state)| is_of_state(spec, state)))
        };
        if !fits(held) || !fits(next) || pipeline.files.len() > MAX_ARCHIVE_FILES {
            return Err("the version's pipeline contradicts its signature".to_owned());
        }
    }
    registration.profile.points.truncate(MAX_POINTS);
    registration.can_batch &= registration.signature.has_batch_axis();
    registration.profile.best_batch = registration.profile.best_batch.max(1);
    Ok(registration)
}

/// Whether a tensor is what a state says, and small enough to be kept.
fn is_of_state(spec: &TensorSpec, state: &StateFact) -> bool {
    let extents = spec.dims.iter().zip(&state.shape);
    let bytes = element_count(&state.shape)
        .zip(state.datatype.element_bytes())
        .and_then(|(count, size)| count.checked_mul(size as u64));
    spec.datatype == state.datatype
        && spec.dims.len() == state.shape.len()
        && extents.into_iter().all(|(dim, extent)| *dim == Dim::Fixed(*extent))
        && bytes.is_some_and(|bytes| (1..=MAX_STATE_BYTES).contains(&bytes))
}

#[cfg(test)]
mod tests;
