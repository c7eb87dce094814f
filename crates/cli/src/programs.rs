//! Where the server finds what it does not contain: the engine's library and the worker program.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The environment variable that names the library.
pub(crate) const LIBRARY_VARIABLE: &str = "TENANTRY_ONNXRUNTIME";
/// The library inside a cache folder, as `cargo xtask fetch` lays it out.
const CACHED_LIBRARY: &str = "onnxruntime/1.31.1/libonnxruntime.so.1.31.1";
const WORKER_PROGRAM: &str = "tenantry-worker";

/// How to get the library.
pub(crate) const LIBRARY_HINT: &str = "in the repository `cargo xtask fetch` brings it; for an installed server \
     `cargo xtask fetch --only runtime --cache ~/.cache/tenantry` does, or set TENANTRY_ONNXRUNTIME to a \
     libonnxruntime.so of version 1.31 or newer";

/// The engine's library: named by the environment, else by the configuration, else in the user's cache, else in `.cache` of
/// the current folder.
pub(crate) fn engine_library(configured: Option<&Path>) -> Result<PathBuf> {
    let named = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = user_cache(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"));
    find_library(named, configured, cache)
}

fn find_library(named: Option<PathBuf>, configured: Option<&Path>, cache: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = named {
        ensure!(path.is_file(), "{LIBRARY_VARIABLE} names {}, which is not a file", path.display());
        return Ok(path);
    }
    if let Some(path) = configured {
        ensure!(path.is_file(), "`engine.library` names {}, which is not a file", path.display());
        return Ok(path.to_owned());
    }
    let folders = cache.into_iter().map(|cache| cache.join("tenantry")).chain([PathBuf::from(".cache")]);
    let candidates: Vec<PathBuf> = folders.map(|folder| folder.join(CACHED_LIBRARY)).collect();
    let found = candidates.iter().find(|path| path.is_file());
    found.cloned().with_context(|| {
        let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!("the ONNX Runtime library is in none of: {}\nhint: {LIBRARY_HINT}", places.join(", "))
    })
}

fn user_cache(xdg: Option<std::ffi::OsString>, home: Option<std::ffi::OsString>) -> Option<PathBuf> {
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    xdg.or_else(|| home.map(|home| PathBuf::from(home).join(".cache")))
}

/// The program `tenantry-worker`: as configured, else beside this one.
pub(crate) fn worker_binary(configured: Option<&Path>) -> Result<PathBuf> {
    let path = match configured {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("cannot find this program's own file")?.with_file_name(WORKER_PROGRAM),
    };
    ensure!(
        path.is_file(),
        "the worker program {} does not exist\n\
         hint: install `tenantry-worker` beside `tenantry`, or name it as `workers.binary`; in the repository \
         `cargo build --release -p tenantry-worker` builds it",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_the_configuration_and_that_over_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cached = folder.path().join("tenantry").join(CACHED_LIBRARY);
        std::fs::create_dir_all(cached.parent().unwrap()).unwrap();
        let [named, configured] = ["named", "configured"].map(|name| folder.path().join(name));
        for path in [&cached, &named, &configured] {
            std::fs::write(path, "").unwrap();
        }
        let cache = || Some(folder.path().to_owned());
        assert_eq!(find_library(Some(named.clone()), Some(&configured), cache()).unwrap(), named);
        assert_eq!(find_library(None, Some(&configured), cache()).unwrap(), configured);
        assert_eq!(find_library(None, None, cache()).unwrap(), cached);
    }

    #[test]
    fn a_missing_library_says_where_it_was_looked_for_and_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(find_library(Some(missing.clone()), None, None).unwrap_err().to_string().contains(LIBRARY_VARIABLE));
        assert!(find_library(None, Some(&missing), None).unwrap_err().to_string().contains("engine.library"));
        assert!(worker_binary(Some(&missing)).unwrap_err().to_string().contains("workers.binary"));
    }

    #[test]
    fn the_cache_is_where_the_desktop_standard_puts_it() {
        let os = |text: &str| Some(text.into());
        assert_eq!(user_cache(os("/x"), os("/home/a")), Some("/x".into()));
        assert_eq!(user_cache(os("relative"), os("/home/a")), Some("/home/a/.cache".into()));
        assert_eq!(user_cache(None, None), None);
    }
}
