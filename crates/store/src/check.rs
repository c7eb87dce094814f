//! What a value must be before it is written. The messages reach the client.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use tenantry_types::limits::MAX_ARCHIVE_FILES;
use tenantry_types::share::{DeviceRate, WorkerLimits};
use tenantry_types::{Digest, ModelName, ModelRef, Role, ShareSettings, ShareSubject};

use crate::WriteError;
use crate::limits::{
    MAX_BURST_MS, MAX_CACHE_TTL_MS, MAX_DESCRIPTION_BYTES, MAX_FILE_NAME_BYTES, MAX_NAMED, MAX_REPLICAS,
    MAX_SEARCH_TEXT_BYTES, MAX_WEIGHT_MILLI, MAX_WORD_BYTES, MAX_WORDS, MIN_WORKER_CPU_MILLI, MIN_WORKER_MEMORY_BYTES,
    MIN_WORKER_PROCESSES,
};
use crate::records::{DeploymentChange, NewKey, NewVersion, StoredFile};

/// How the name of a client's certificate begins: of which kind it is.
const CERTIFICATE_NAMES: [&str; 3] = ["URI:", "DNS:", "CN:"];

type Checked = Result<(), WriteError>;

fn invalid(message: String) -> Checked {
    Err(WriteError::Invalid(message))
}

/// Text of one line.
pub(crate) fn word(what: &str, text: &str) -> Checked {
    if text.len() > MAX_WORD_BYTES {
        return invalid(format!("the {what} is longer than {MAX_WORD_BYTES} bytes"));
    }
    // Postgres cannot keep a NUL, and the others have no place in one line.
    if text.chars().any(char::is_control) {
        return invalid(format!("the {what} contains control characters"));
    }
    Ok(())
}

/// What a key is made with.
pub(crate) fn key(new: &NewKey) -> Checked {
    word("label", &new.label)?;
    if let Some(subject) = &new.certificate {
        word("subject of the certificate", subject)?;
        if !CERTIFICATE_NAMES.iter().any(|kind| subject.strip_prefix(kind).is_some_and(|rest| !rest.is_empty())) {
            return invalid(format!(
                "a client's certificate is named by one of its subject alternative names or by its subject's common name: \
                 write one of {} and the name",
                CERTIFICATE_NAMES.join(" ")
            ));
        }
        if new.role == Role::PlatformAdmin {
            return invalid("a certificate cannot be the platform's key".to_owned());
        }
    }
    let Some(models) = &new.scope.models else { return Ok(()) };
    if models.len() > MAX_NAMED {
        return invalid(format!("a key is confined to {MAX_NAMED} models at most"));
    }
    match models.iter().find(|model| model.parse::<ModelRef>().is_err()) {
        Some(wrong) => invalid(format!(
            "`{}` is no model: write `name` for an own one, `owner/name` for another tenant's",
            tenantry_types::error::sanitise(wrong, MAX_WORD_BYTES)
        )),
        None => Ok(()),
    }
}

/// Text of many lines.
pub(crate) fn description(text: &str) -> Checked {
    if text.len() > MAX_DESCRIPTION_BYTES {
        return invalid(format!("the description is longer than {MAX_DESCRIPTION_BYTES} bytes"));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return invalid("the description contains control characters".to_owned());
    }
    Ok(())
}

fn how_many(things: &str, count: usize) -> Checked {
    if count > MAX_WORDS { invalid(format!("there are more than {MAX_WORDS} {things}")) } else { Ok(()) }
}

pub(crate) fn tags(tags: &BTreeMap<String, String>) -> Checked {
    how_many("tags", tags.len())?;
    for (name, value) in tags {
        if name.is_empty() {
            return invalid("a tag has no name".to_owned());
        }
        word("name of a tag", name)?;
        word("value of a tag", value)?;
    }
    Ok(())
}

pub(crate) fn dependencies(dependencies: &[String]) -> Checked {
    how_many("dependencies", dependencies.len())?;
    dependencies.iter().try_for_each(|dependency| word("dependency", dependency))
}

/// A file name a worker may be told and an archive may hold: relative, plain, inside the version.
pub(crate) fn file_name(name: &str) -> Checked {
    let plain = !name.is_empty()
        && name.len() <= MAX_FILE_NAME_BYTES
        && !name.contains('\\')
        && !name.chars().any(char::is_control)
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain {
        return Ok(());
    }
    let shown = tenantry_types::error::sanitise(name, MAX_FILE_NAME_BYTES);
    invalid(format!(
        "`{shown}` cannot be the name of a file: use a relative one without `..`, at most {MAX_FILE_NAME_BYTES} bytes"
    ))
}

pub(crate) fn version(version: &NewVersion) -> Checked {
    description(&version.description)?;
    tags(&version.tags)?;
    how_many("quality measures", version.quality.len())?;
    for (name, value) in &version.quality {
        word("name of a quality measure", name)?;
        if !value.is_finite() {
            return invalid(format!("the quality measure `{name}` is not a finite number"));
        }
    }
    how_many("disabled optimizers", version.settings.disabled_optimizers.len())?;
    version.settings.disabled_optimizers.iter().try_for_each(|name| word("name of an optimizer", name))?;
    let settings = &version.settings;
    let zero = [
        ("max_batch", settings.max_batch == Some(0)),
        ("max_run_ms", settings.max_run_ms == Some(0)),
        ("threads", settings.threads == Some(0)),
    ];
    if let Some((name, _)) = zero.iter().find(|(_, is_zero)| *is_zero) {
        return invalid(format!("the setting `{name}` is 0; leave it out to have it chosen, or give at least 1"));
    }
    if version.files.is_empty() || version.files.len() > MAX_ARCHIVE_FILES {
        return invalid(format!("a version has 1 to {MAX_ARCHIVE_FILES} files"));
    }
    let mut names = BTreeSet::new();
    for file in &version.files {
        file_name(&file.name)?;
        if !names.insert(&file.name) {
            return invalid(format!("the file `{}` is there twice", file.name));
        }
    }
    Ok(())
}

/// All digits would be a version's number.
pub(crate) fn alias(name: &ModelName) -> Checked {
    if name.as_str().bytes().all(|c| c.is_ascii_digit()) {
        return invalid(format!("`{name}` cannot be an alias: it would be taken for a version's number"));
    }
    Ok(())
}

pub(crate) fn deployment(change: &DeploymentChange) -> Checked {
    if !(1..=MAX_REPLICAS).contains(&change.max_replicas) || change.min_replicas > change.max_replicas {
        return invalid(format!(
            "a deployment needs 0 <= min_replicas <= max_replicas and 1 <= max_replicas <= {MAX_REPLICAS}"
        ));
    }
    if change.idle_after_ms.is_some_and(|idle_ms| i64::try_from(idle_ms).is_err()) {
        return invalid("idle_after is too long; leave it out to keep idle replicas loaded".to_owned());
    }
    if change.default_timeout_ms.is_some_and(|timeout_ms| timeout_ms == 0 || i64::try_from(timeout_ms).is_err()) {
        return invalid("the default timeout must be at least a millisecond; leave it out for the server's".to_owned());
    }
    if change.cache_ttl_ms.is_some_and(|ttl_ms| !(1..=MAX_CACHE_TTL_MS).contains(&ttl_ms)) {
        return invalid("answers are kept for a millisecond to a day; leave it out to keep none".to_owned());
    }
    Ok(())
}

/// The settings of a node of the share tree: which fields it may have, and what they may be.
pub(crate) fn share(subject: ShareSubject, settings: &ShareSettings) -> Checked {
    let of_organisation = matches!(subject, ShareSubject::Organisation(_));
    let of_tenant = matches!(subject, ShareSubject::Tenant(_));
    let wrong_place = [
        ("organisation", settings.organisation.is_some() && !of_tenant),
        ("slot_group", settings.slot_group.is_some() && !of_tenant),
        ("batch_with_others", settings.batch_with_others.is_some() && !of_tenant),
        ("max_bodies_bytes", settings.max_bodies_bytes.is_some() && !of_tenant),
        ("max_cache_bytes", settings.max_cache_bytes.is_some() && !of_tenant),
        ("worker", !settings.worker.is_empty() && !of_tenant),
    ];
    if let Some((field, _)) = wrong_place.iter().find(|(_, is_wrong)| *is_wrong) {
        return invalid(format!("`{field}` can be set for tenants only"));
    }
    let not_for_organisations = [
        ("tier", settings.tier.is_some()),
        ("reservation", settings.reservation.is_some()),
        ("request_rate", settings.request_rate.is_some()),
        ("max_requests", settings.max_requests.is_some()),
        ("max_body_bytes", settings.max_body_bytes.is_some()),
    ];
    if let Some((field, _)) = not_for_organisations.iter().find(|(_, is_set)| of_organisation && *is_set) {
        return invalid(format!("`{field}` cannot be set for an organisation; set it for its tenants"));
    }
    let zero = [
        ("weight", settings.weight_milli == Some(0)),
        ("reservation", settings.reservation.is_some_and(|rate| rate.ppm == 0 || rate.burst_ms == 0)),
        ("device_time", settings.device_time.is_some_and(|rate| rate.ppm == 0 || rate.burst_ms == 0)),
        ("request_rate", settings.request_rate.is_some_and(|rate| rate.milli_per_second == 0 || rate.burst == 0)),
        ("max_requests", settings.max_requests == Some(0)),
        ("max_queued_tasks", settings.max_queued_tasks == Some(0)),
        ("max_queued_bytes", settings.max_queued_bytes == Some(0)),
        ("max_body_bytes", settings.max_body_bytes == Some(0)),
        ("max_bodies_bytes", settings.max_bodies_bytes == Some(0)),
    ];
    if let Some((field, _)) = zero.iter().find(|(_, is_zero)| *is_zero) {
        return invalid(format!("`{field}` is 0; leave it out to have the default, or give more than 0"));
    }
    if settings.weight_milli.is_some_and(|weight_milli| weight_milli > MAX_WEIGHT_MILLI) {
        return invalid(format!("`weight` is at most {}", MAX_WEIGHT_MILLI / 1_000));
    }
    let long = |rate: Option<DeviceRate>| rate.is_some_and(|rate| rate.burst_ms > MAX_BURST_MS);
    if long(settings.reservation) || long(settings.device_time) {
        return invalid(format!("a burst is at most {MAX_BURST_MS} milliseconds of device time"));
    }
    worker_limits(&settings.worker)?;
    settings.slot_group.iter().try_for_each(|group| word("name of the slot group", group))
}

/// With less than the least, no worker gets as far as loading the runtime.
fn worker_limits(limits: &WorkerLimits) -> Checked {
    if limits.memory_bytes.is_some_and(|bytes| bytes < MIN_WORKER_MEMORY_BYTES) {
        return invalid(format!("`worker.memory` is at least {} MiB", MIN_WORKER_MEMORY_BYTES >> 20));
    }
    if limits.max_processes.is_some_and(|most| most < MIN_WORKER_PROCESSES) {
        return invalid(format!("`worker.max_processes` is at least {MIN_WORKER_PROCESSES}"));
    }
    if limits.max_cpu_milli.is_some_and(|milli| milli < MIN_WORKER_CPU_MILLI) {
        return invalid(format!("`worker.max_cpus` is at least {}", f64::from(MIN_WORKER_CPU_MILLI) / 1e3));
    }
    Ok(())
}

/// The digest of a file list: each name, digest and length in order, none of which can be mistaken for another.
pub(crate) fn file_list_digest(files: &[StoredFile]) -> Digest {
    let mut hasher = Sha256::new();
    for file in files {
        // A name has no NUL, the rest has a fixed length.
        hasher.update(file.name.as_bytes());
        hasher.update([0]);
        hasher.update(file.digest.as_bytes());
        hasher.update(file.bytes.to_be_bytes());
    }
    Digest::from_bytes(hasher.finalize().into())
}

/// What a search looks at: lower case, one space for whatever does not print, capped.
pub(crate) fn search_text<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for part in parts {
        for c in part.chars().flat_map(char::to_lowercase).chain(['\n']) {
            if text.len() + c.len_utf8() > MAX_SEARCH_TEXT_BYTES {
                return text;
            }
            text.push(if c.is_control() { ' ' } else { c });
        }
    }
    text
}

/// A pattern for `LIKE ... ESCAPE '!'` that finds `word` anywhere in a [`search_text`].
pub(crate) fn search_pattern(word: &str) -> String {
    let mut pattern = String::from("%");
    for c in word.chars().flat_map(char::to_lowercase) {
        if matches!(c, '!' | '%' | '_') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_inside_the_version() {
        for good in ["model.onnx", "weights/part-0.bin", "a b.json", ".hidden", "…"] {
            assert!(file_name(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "a\0", "a\nb", &"x".repeat(256)] {
            assert!(file_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_digest_of_a_file_list_depends_on_names_bytes_and_order() {
        let file = |name: &str, data: &[u8]| StoredFile {
            name: name.to_owned(),
            digest: Digest::of(data),
            bytes: data.len() as u64,
        };
        let list = [file("a", b"1"), file("b", b"2")];
        let same = file_list_digest(&list);
        assert_eq!(same, file_list_digest(&list.clone()));
        let others = [
            vec![file("b", b"2"), file("a", b"1")],
            vec![file("a", b"1")],
            vec![file("a", b"2"), file("b", b"1")],
            vec![file("ab", b"1"), file("", b"2")],
        ];
        for other in others {
            assert_ne!(same, file_list_digest(&other), "{other:?}");
        }
    }

    #[test]
    fn patterns_take_wildcards_literally() {
        assert_eq!(search_pattern("A%_!b"), "%a!%!_!!b%");
        assert_eq!(search_text(["Ä\u{0}b", "C"]), "ä b c ");
    }

    #[test]
    fn search_text_is_capped_inside_no_character() {
        let long = "é".repeat(MAX_SEARCH_TEXT_BYTES);
        assert!(search_text([long.as_str()]).len() <= MAX_SEARCH_TEXT_BYTES);
    }
}
