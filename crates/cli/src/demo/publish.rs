//! The stage: two tenants with a key each, models shared by the operator, and a private model of each tenant.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tenantry_api::admin::types::{NewKey, Role, Version, VersionSettings, VersionState};
use tenantry_types::{ModelRef, TenantName};

use super::material::Material;
use super::tell;
use crate::client::Client;
use crate::commands::model::{NewModelVersion, push};
use crate::commands::{key, tenant};
use crate::output::Progress;

/// A tenant of the demo with its key.
pub(super) struct Actor {
    pub(super) name: &'static str,
    pub(super) key: String,
    pub(super) client: Client,
}

/// Who and what the demo plays with.
pub(super) struct Stage {
    pub(super) server: String,
    pub(super) platform_key: String,
    pub(super) acme: Actor,
    pub(super) globex: Actor,
}

/// A model of the demo: its files, and the manifest that lets it speak in files and sentences.
struct Exhibit {
    name: &'static str,
    /// Where the files are, below the folder of the models.
    files: &'static [&'static str],
    /// Files that are written here.
    written: &'static [(&'static str, &'static str)],
    about: &'static str,
    licence: &'static str,
    share: bool,
}

const FILE_TYPE: Exhibit = Exhibit {
    name: "platform/file-type",
    files: &["magika/model.onnx", "magika/config.min.json", "magika/content_types_kb.min.json"],
    written: &[("tenantry.toml", include_str!("../../../../examples/file-type/tenantry.toml"))],
    about: "what type a file is, from its first and last bytes",
    licence: "Apache-2.0",
    share: true,
};
const SENTENCES: Exhibit = Exhibit {
    name: "platform/sentences",
    files: &["minilm/model.onnx", "minilm/tokenizer.json"],
    written: &[("tenantry.toml", include_str!("../../../../examples/sentences/tenantry.toml"))],
    about: "the meaning of a sentence as 384 numbers",
    licence: "Apache-2.0",
    share: true,
};
static EXHIBITS: [Exhibit; 6] = [
    FILE_TYPE,
    SENTENCES,
    Exhibit {
        name: "platform/picture-safety",
        files: &["nsfw/open_nsfw.onnx"],
        written: &[
            ("tenantry.toml", include_str!("../../../../examples/picture-safety/tenantry.toml")),
            ("labels.txt", include_str!("../../../../examples/picture-safety/labels.txt")),
        ],
        about: "how safe a picture is to show",
        licence: "BSD-2-Clause",
        share: true,
    },
    Exhibit {
        name: "platform/speech",
        files: &["silero/silero_vad.onnx"],
        written: &[("tenantry.toml", include_str!("../../../../examples/speech/tenantry.toml"))],
        about: "where somebody speaks in a sound",
        licence: "MIT",
        share: true,
    },
    Exhibit { name: "acme/file-type", share: false, ..FILE_TYPE },
    Exhibit { name: "globex/sentences", share: false, ..SENTENCES },
];

impl Exhibit {
    /// A folder as somebody would upload it.
    fn folder(&self, models: &Path) -> Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("tenantry-model-").tempdir()?;
        for file in self.files {
            let from = models.join(file);
            let name = from.file_name().context("a model's file has no name")?;
            std::fs::copy(&from, folder.path().join(name))
                .with_context(|| format!("cannot read {}", from.display()))?;
        }
        for (name, text) in self.written {
            std::fs::write(folder.path().join(name), text)?;
        }
        Ok(folder)
    }
}

impl Stage {
    /// Makes tenants and keys, uploads every model at the same time, and waits until all can be served.
    pub(super) fn set(platform: &Client, platform_key: &str, material: &Material, quiet: bool) -> Result<Self> {
        let server = platform.server().to_owned();
        let [acme, globex] = ["acme", "globex"].map(|name| actor(platform, name));
        let stage = Self { acme: acme?, globex: globex?, platform_key: platform_key.to_owned(), server };
        let progress = Progress::new(quiet);
        if !quiet {
            tell::publishing();
        }
        // One thread a model; the server decides how many registrations run at the same time.
        let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
            let (stage, progress) = (&stage, &progress);
            let spawn = |exhibit: &'static Exhibit| {
                scope.spawn(move || stage.publish(platform, exhibit, &material.models, progress, quiet))
            };
            let threads: Vec<_> = EXHIBITS.iter().map(spawn).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a publishing thread broke")))
            };
            threads.into_iter().map(join).collect()
        });
        outcomes.into_iter().collect::<Result<()>>()?;
        Ok(stage)
    }

    fn publish(
        &self,
        platform: &Client,
        exhibit: &Exhibit,
        models: &Path,
        progress: &Progress,
        quiet: bool,
    ) -> Result<()> {
        let model: ModelRef = exhibit.name.parse()?;
        // Each tenant brings its own model with its own key.
        let owner = model.owner.as_ref().map(TenantName::as_str);
        let actors = [&self.acme, &self.globex];
        let client = actors.into_iter().find(|actor| owner == Some(actor.name)).map_or(platform, |actor| &actor.client);
        let folder = exhibit.folder(models)?;
        let new = NewModelVersion {
            model,
            file: folder.path().to_owned(),
            share: exhibit.share,
            about: Some(exhibit.about.to_owned()),
            description: String::new(),
            framework: None,
            tags: BTreeMap::from([("licence".to_owned(), exhibit.licence.to_owned())]),
            quality: BTreeMap::new(),
            dependencies: None,
            min_isolation: None,
            deploy: true,
            settings: VersionSettings::default(),
        };
        let begun = Instant::now();
        let version = push(client, &new, progress).with_context(|| exhibit.name.to_owned())?;
        anyhow::ensure!(
            version.state == VersionState::Ready,
            "{} is not ready: {}",
            exhibit.name,
            version.reason.as_deref().unwrap_or("its registration takes too long")
        );
        if !quiet {
            progress.say(&published_text(exhibit.name, &version, begun.elapsed()));
        }
        Ok(())
    }
}

fn published_text(name: &str, version: &Version, took: Duration) -> String {
    use crate::output::{size, span};

    let single = version.profile.as_ref().and_then(|profile| profile.points.iter().find(|point| point.rows == 1));
    let measured =
        single.map_or_else(String::new, |point| format!(", {} a run", span(Duration::from_nanos(point.run_ns))));
    format!("  {name:24} {:>9}, ready after {}{measured}", size(version.bytes), span(took))
}

fn actor(platform: &Client, name: &'static str) -> Result<Actor> {
    let tenant: TenantName = name.parse()?;
    tenant::create(platform, &tenant)?;
    let new = NewKey { label: "demo".to_owned(), ..NewKey::of(Role::Admin) };
    let created = key::create(platform, &tenant, &new)?;
    let secret = created.key.context("the new key has no secret")?;
    let client = Client::new(platform.server(), Some(&secret));
    Ok(Actor { name, key: secret, client })
}
