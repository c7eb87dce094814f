use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;

const CONTEXT: &[u8] = b"tenant and generation";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new(&[byte; KEY_BYTES])
}

#[test]
fn keys_are_never_printed() {
    let key = key(0xab);
    let shown = format!("{key:?} {:?}", EnvironmentKey::new(&new_master_key().unwrap()).unwrap());
    assert!(!shown.contains("171") && !shown.contains("abab") && !shown.contains("tmk1"), "{shown}");
}

#[test]
fn a_key_in_the_environment_wraps_for_one_context_and_says_when_it_is_another() {
    let runtime = runtime();
    let (old, new) = (new_master_key().unwrap(), new_master_key().unwrap());
    let first = EnvironmentKey::new(&old).unwrap();
    let wrapped = runtime.block_on(first.wrap(&key(7), CONTEXT)).unwrap();
    assert_eq!(runtime.block_on(first.unwrap(&wrapped, CONTEXT)).unwrap().as_bytes(), key(7).as_bytes());
    assert_ne!(runtime.block_on(first.wrap(&key(7), CONTEXT)).unwrap(), wrapped, "a nonce of its own");
    let elsewhere = runtime.block_on(first.unwrap(&wrapped, b"another tenant"));
    assert!(matches!(elsewhere, Err(MasterKeyError::Refused)));
    for at in [0, wrapped.text.len() / 2, wrapped.text.len() - 2] {
        let mut text = wrapped.text.clone().into_bytes();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        let changed = WrappedKey { text: String::from_utf8(text).unwrap(), ..wrapped.clone() };
        assert!(matches!(runtime.block_on(first.unwrap(&changed, CONTEXT)), Err(MasterKeyError::Refused)), "{at}");
    }
    let second = EnvironmentKey::new(&new).unwrap();
    let unknown = runtime.block_on(second.unwrap(&wrapped, CONTEXT)).unwrap_err();
    assert!(matches!(&unknown, MasterKeyError::Unknown { wanted } if *wanted == wrapped.master_key), "{unknown}");
    // Both, the new one first: it wraps, both unwrap.
    let both = EnvironmentKey::new(&format!("{}, {}", *new, *old)).unwrap();
    assert_eq!(runtime.block_on(both.unwrap(&wrapped, CONTEXT)).unwrap().as_bytes(), key(7).as_bytes());
    assert_ne!(runtime.block_on(both.wrap(&key(7), CONTEXT)).unwrap().master_key, wrapped.master_key);
    assert!(matches!(EnvironmentKey::new(" \n"), Err(MasterKeyError::Missing)));
    for bad in ["secret", "tmk1_AAAA", "tmk1_%%%"] {
        let error = EnvironmentKey::new(bad).unwrap_err().to_string();
        assert!(!error.contains(bad), "{error}");
    }
}

#[test]
fn a_file_is_made_when_it_is_needed_and_rotates() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let path = folder.path().join("master-key");
    let file = FileKey::open(&path).unwrap();
    assert!(!path.exists() && !file.is_there() && runtime.block_on(file.current()).unwrap().is_none());
    let wrapped = WrappedKey { master_key: "file:0".to_owned(), text: String::new() };
    assert!(matches!(runtime.block_on(file.unwrap(&wrapped, CONTEXT)), Err(MasterKeyError::Missing)));
    let wrapped = runtime.block_on(file.wrap(&key(1), CONTEXT)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = FileKey::open(&path).unwrap();
    assert_eq!(runtime.block_on(again.unwrap(&wrapped, CONTEXT)).unwrap().as_bytes(), key(1).as_bytes());

    let keys = |path: &Path| std::fs::read_to_string(path).unwrap().matches("tmk1_").count();
    runtime.block_on(again.rotate()).unwrap();
    let newer = runtime.block_on(again.wrap(&key(2), CONTEXT)).unwrap();
    assert_ne!(newer.master_key, wrapped.master_key);
    assert_eq!((keys(&path), runtime.block_on(again.current()).unwrap()), (2, Some(newer.master_key.clone())));
    runtime.block_on(again.unwrap(&wrapped, CONTEXT)).unwrap();
    runtime.block_on(again.forget_older()).unwrap();
    assert_eq!(keys(&path), 1);
    assert!(matches!(runtime.block_on(again.unwrap(&wrapped, CONTEXT)), Err(MasterKeyError::Unknown { .. })));
    runtime.block_on(FileKey::open(&path).unwrap().unwrap(&newer, CONTEXT)).unwrap();

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let open = FileKey::open(&path).unwrap_err().to_string();
    assert!(open.contains("chmod 600"), "{open}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "# nothing\n").unwrap();
    assert!(matches!(FileKey::open(&path), Err(MasterKeyError::Invalid(_))));
}

#[test]
fn only_a_vault_that_may_be_asked_is() {
    for good in ["https://vault.example.com:8200", "https://10.0.0.1/", "http://127.0.0.1:8200", "http://[::1]:1"] {
        assert_eq!(VaultConfig::check_address(good), Ok(()), "{good}");
    }
    for plain in ["http://vault.example.com:8200", "http://10.0.0.1:1", "http://127.0.0.1.example.com"] {
        assert_eq!(VaultConfig::check_address(plain), Err(VaultAddressError::PlainText), "{plain}");
    }
    for bad in ["", "vault", "/v1", "ftp://127.0.0.1", "https://u:p@v", "https://v/path", "https://v?x=1", "https://"] {
        assert_eq!(VaultConfig::check_address(bad), Err(VaultAddressError::NotAUrl), "{bad}");
    }
    for name in ["transit", "team-a/transit", "a.b_c"] {
        assert!(VaultConfig::is_name(name), "{name}");
    }
    for name in ["", "a/../b", "/a", "a//b", "a b", "a?b", "a#b", "a%2fb", ".."] {
        assert!(!VaultConfig::is_name(name), "{name}");
    }
}
