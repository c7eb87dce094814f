//! Master keys at hand: in a file, or in a variable of the environment.
//!
//! A key is written as `tmk1_` and its 32 bytes in base64 (URL alphabet, no padding). Several are one a line, or separated by
//! commas: the first wraps, all unwrap. Its id is of its hash, so that it can be told which one is missing without saying
//! anything about it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::{KEY_BYTES, MasterKey, MasterKeyError, SecretKey, WrappedKey};
use crate::open::{random, sync_folder};

const PREFIX: &str = "tmk1_";
/// What a file of keys begins with.
const COMMENT: &str = "\
# Tenantry's master key. Whoever has it and the database reads the files of all tenants; whoever loses it reads none.
# Keep a copy, apart from the copies of database and files. The first key wraps, all unwrap.
";
/// The longest file or variable that is read, bytes.
const MAX_TEXT_BYTES: u64 = 64 << 10;
/// The most keys of one file or variable.
const MAX_KEYS: usize = 64;

/// Keys of which the first wraps.
#[derive(Debug, Clone, Default)]
struct Keys(Vec<(String, SecretKey)>);

impl Keys {
    fn parse(text: &str, kind: &str) -> Result<Self, MasterKeyError> {
        let invalid = |what: &str| MasterKeyError::Invalid(what.to_owned());
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let words = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty());
        let mut keys = Vec::new();
        for word in words {
            if keys.len() == MAX_KEYS {
                return Err(invalid("there are more keys than are read"));
            }
            let digits = word.strip_prefix(PREFIX).ok_or_else(|| {
                invalid(&format!(
                    "a key is `{PREFIX}` and 32 bytes in base64; `tenantry encryption new-key` prints one"
                ))
            })?;
            let bytes = Zeroizing::new(BASE64.decode(digits).map_err(|_| invalid("a key is not in base64"))?);
            let bytes: &[u8; KEY_BYTES] =
                bytes.as_slice().try_into().map_err(|_| invalid("a key does not have 32 bytes"))?;
            keys.push((id(kind, bytes), SecretKey::new(bytes)));
        }
        Ok(Self(keys))
    }

    fn wrap(&self, key: &SecretKey, context: &[u8]) -> Result<WrappedKey, MasterKeyError> {
        let (id, master) = self.0.first().ok_or(MasterKeyError::Missing)?;
        let nonce: [u8; NONCE_LEN] = random().map_err(MasterKeyError::System)?;
        let mut sealed = Zeroizing::new(key.as_bytes().to_vec());
        let outcome = cipher(master)?.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context),
            &mut *sealed,
        );
        outcome.map_err(|_| MasterKeyError::Refused)?;
        let text = BASE64.encode([nonce.as_slice(), sealed.as_slice()].concat());
        Ok(WrappedKey { master_key: id.clone(), text })
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<SecretKey, MasterKeyError> {
        if self.0.is_empty() {
            return Err(MasterKeyError::Missing);
        }
        let (_, master) = self
            .0
            .iter()
            .find(|(id, _)| *id == wrapped.master_key)
            .ok_or_else(|| MasterKeyError::Unknown { wanted: wrapped.master_key.clone() })?;
        let bytes = BASE64.decode(&wrapped.text).map_err(|_| MasterKeyError::Refused)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(MasterKeyError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| MasterKeyError::Refused)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = cipher(master)?.open_in_place(nonce, Aad::from(context), &mut sealed);
        let opened = opened.map_err(|_| MasterKeyError::Refused)?;
        Ok(SecretKey::new((&*opened).try_into().map_err(|_| MasterKeyError::Refused)?))
    }
}

/// The printed form of a new master key.
///
/// # Errors
/// If the system gives no random numbers.
pub fn new_master_key() -> Result<Zeroizing<String>, MasterKeyError> {
    Ok(written(&SecretKey::random()?))
}

fn written(key: &SecretKey) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(64));
    text.push_str(PREFIX);
    BASE64.encode_string(key.as_bytes(), &mut text);
    text
}

/// Names a key without saying anything about it.
fn id(kind: &str, key: &[u8; KEY_BYTES]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"tenantry master key id\0");
    hasher.update(key);
    let mut hash: [u8; 32] = hasher.finalize().into();
    let id = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    hash.zeroize();
    format!("{kind}:{id}")
}

fn cipher(key: &SecretKey) -> Result<LessSafeKey, MasterKeyError> {
    // It has the right length by its type.
    UnboundKey::new(&AES_256_GCM, key.as_bytes()).map(LessSafeKey::new).map_err(|_| MasterKeyError::Refused)
}

/// A master key in a variable of the environment. Whoever may read the server's memory may read it there as well; workers are
/// started without the server's environment.
#[derive(Debug)]
pub struct EnvironmentKey {
    keys: Keys,
}

impl EnvironmentKey {
    const KIND: &'static str = "environment";

    /// The keys in a variable's value.
    ///
    /// # Errors
    /// [`MasterKeyError`] if there is none, or it is not one.
    pub fn new(value: &str) -> Result<Self, MasterKeyError> {
        let keys = Keys::parse(value, Self::KIND)?;
        if keys.0.is_empty() {
            return Err(MasterKeyError::Missing);
        }
        Ok(Self { keys })
    }
}

impl MasterKey for EnvironmentKey {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<String>, MasterKeyError>> {
        std::future::ready(Ok(self.keys.0.first().map(|(id, _)| id.clone()))).boxed()
    }

    fn wrap<'a>(&'a self, key: &'a SecretKey, context: &'a [u8]) -> BoxFuture<'a, Result<WrappedKey, MasterKeyError>> {
        std::future::ready(self.keys.wrap(key, context)).boxed()
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a WrappedKey,
        context: &'a [u8],
    ) -> BoxFuture<'a, Result<SecretKey, MasterKeyError>> {
        std::future::ready(self.keys.unwrap(wrapped, context)).boxed()
    }

    /// The operator puts a new key in front of the old one and starts the server again; here is nothing to make.
    fn rotate(&self) -> BoxFuture<'_, Result<(), MasterKeyError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn forget_older(&self) -> BoxFuture<'_, Result<(), MasterKeyError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// A master key in a file of the server's own, made when it is first needed.
pub struct FileKey {
    path: PathBuf,
    keys: Arc<Mutex<Keys>>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").finish_non_exhaustive()
    }
}

impl FileKey {
    const KIND: &'static str = "file";

    /// The keys of a file; one that is not there is written when something is wrapped.
    ///
    /// # Errors
    /// [`MasterKeyError`] if the file cannot be read, others may read it, or it holds something else.
    pub fn open(path: &Path) -> Result<Self, MasterKeyError> {
        let keys = read(path)?;
        Ok(Self { path: path.to_owned(), keys: Arc::new(Mutex::new(keys)) })
    }

    /// Whether there is a key.
    pub fn is_there(&self) -> bool {
        !self.keys.lock().0.is_empty()
    }

    /// Changes the keys, first in the file.
    fn change(
        &self,
        change: impl FnOnce(&Keys) -> Result<Option<Keys>, MasterKeyError> + Send + 'static,
    ) -> BoxFuture<'_, Result<(), MasterKeyError>> {
        let (path, shared) = (self.path.clone(), Arc::clone(&self.keys));
        let changing = move || {
            let mut keys = shared.lock();
            if let Some(next) = change(&keys)? {
                write(&path, &next).map_err(MasterKeyError::System)?;
                *keys = next;
            }
            Ok(())
        };
        async move {
            let changed = tokio::task::spawn_blocking(changing).await;
            changed.unwrap_or_else(|error| Err(MasterKeyError::System(io::Error::other(error))))
        }
        .boxed()
    }

    /// With a new key in front of the others.
    fn with_new(keys: &Keys) -> Result<Keys, MasterKeyError> {
        if keys.0.len() == MAX_KEYS {
            return Err(MasterKeyError::Invalid("there are as many keys as there may be".to_owned()));
        }
        let key = SecretKey::random()?;
        let new = (id(Self::KIND, key.as_bytes()), key);
        Ok(Keys(std::iter::once(new).chain(keys.0.iter().cloned()).collect()))
    }
}

impl MasterKey for FileKey {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<String>, MasterKeyError>> {
        std::future::ready(Ok(self.keys.lock().0.first().map(|(id, _)| id.clone()))).boxed()
    }

    fn wrap<'a>(&'a self, key: &'a SecretKey, context: &'a [u8]) -> BoxFuture<'a, Result<WrappedKey, MasterKeyError>> {
        async move {
            if !self.is_there() {
                let first = |keys: &Keys| Ok(if keys.0.is_empty() { Some(Self::with_new(keys)?) } else { None });
                self.change(first).await?;
                tracing::warn!(
                    "a master key was made for the tenants' files: keep a copy of it, apart from the copies of database and files; \
                     without it no file can be read"
                );
            }
            let keys = self.keys.lock().clone();
            keys.wrap(key, context)
        }
        .boxed()
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a WrappedKey,
        context: &'a [u8],
    ) -> BoxFuture<'a, Result<SecretKey, MasterKeyError>> {
        let keys = self.keys.lock().clone();
        std::future::ready(keys.unwrap(wrapped, context)).boxed()
    }

    fn rotate(&self) -> BoxFuture<'_, Result<(), MasterKeyError>> {
        self.change(|keys| Self::with_new(keys).map(Some))
    }

    fn forget_older(&self) -> BoxFuture<'_, Result<(), MasterKeyError>> {
        self.change(|keys| Ok((keys.0.len() > 1).then(|| Keys(keys.0.iter().take(1).cloned().collect()))))
    }
}

fn read(path: &Path) -> Result<Keys, MasterKeyError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Keys::default()),
        other => other.map_err(MasterKeyError::System)?,
    };
    let metadata = file.metadata().map_err(MasterKeyError::System)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(MasterKeyError::Invalid(
            "others than its owner may read or write the file that `encryption.key_file` names; take that away (chmod 600)"
                .to_owned(),
        ));
    }
    if metadata.len() > MAX_TEXT_BYTES {
        return Err(MasterKeyError::Invalid("the file is longer than one of keys".to_owned()));
    }
    let text = Zeroizing::new(io::read_to_string(file).map_err(MasterKeyError::System)?);
    let keys = Keys::parse(&text, FileKey::KIND)?;
    if keys.0.is_empty() {
        return Err(MasterKeyError::Invalid("the file that `encryption.key_file` names holds no key".to_owned()));
    }
    Ok(keys)
}

/// Writes aside, syncs and renames: at no moment is a key lost that wrapped something.
fn write(path: &Path, keys: &Keys) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let mut text = Zeroizing::new(String::with_capacity(COMMENT.len() + 64 * (keys.0.len() + 1)));
    text.push_str(COMMENT);
    for (_, key) in &keys.0 {
        text.push_str(&written(key));
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    sync_folder(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}
