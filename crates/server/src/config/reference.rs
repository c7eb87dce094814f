//! The reference page, generated so that it cannot run behind the code.

use std::fmt::Write as _;

use super::{
    AuditTable, BillingTable, CacheTable, Config, EncryptionTable, EngineTable, HttpTable, IdentityTable, IssuerTable,
    Key, LedgerTable, LimitsTable, LogTable, QueueTable, SchedulerTable, SlotGroupTable, StoreTable, TlsTable,
    TokensTable, VaultTable, WorkersTable,
};

/// The reference of all keys as Markdown; `docs/configuration.md` is this text.
pub fn reference() -> String {
    let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
    let mut page = String::from(
        "# Configuration\n\n\
         Generated from the code by `cargo test -p tenantry-server` with `UPDATE_REFERENCE=1`; do not edit.\n\n\
         `tenantry serve --config FILE` reads TOML. Every key has a default; a key the server does not know is an error.\n\
         Sizes are written as \"64MiB\" (B, KiB, MiB, GiB, TiB), durations as \"30s\" (ms, s, m, h, d).\n",
    );
    let top = [Key {
        name: "data_dir",
        doc: " The folder of the database, the artefacts and the first administrator's key.",
    }];
    section(&mut page, None, " Outside any table.", &top, Some(&defaults));
    let tables: [(&str, &str, &[Key]); 14] = [
        ("http", HttpTable::DOC, HttpTable::KEYS),
        ("store", StoreTable::DOC, StoreTable::KEYS),
        ("encryption", EncryptionTable::DOC, EncryptionTable::KEYS),
        ("engine", EngineTable::DOC, EngineTable::KEYS),
        ("workers", WorkersTable::DOC, WorkersTable::KEYS),
        ("scheduler", SchedulerTable::DOC, SchedulerTable::KEYS),
        ("queue", QueueTable::DOC, QueueTable::KEYS),
        ("limits", LimitsTable::DOC, LimitsTable::KEYS),
        ("cache", CacheTable::DOC, CacheTable::KEYS),
        ("audit", AuditTable::DOC, AuditTable::KEYS),
        ("ledger", LedgerTable::DOC, LedgerTable::KEYS),
        ("billing", BillingTable::DOC, BillingTable::KEYS),
        ("identity", IdentityTable::DOC, IdentityTable::KEYS),
        ("log", LogTable::DOC, LogTable::KEYS),
    ];
    for (name, doc, keys) in tables {
        section(&mut page, Some(name), doc, keys, defaults.get(name).and_then(toml::Value::as_table));
        if name == "http" {
            let tls = toml::Table::try_from(TlsTable::default()).unwrap_or_default();
            section(&mut page, Some("http.tls"), TlsTable::DOC, TlsTable::KEYS, Some(&tls));
        }
        if name == "identity" {
            let issuer = toml::Table::try_from(IssuerTable::default()).unwrap_or_default();
            section(&mut page, Some("[identity.issuer]"), IssuerTable::DOC, IssuerTable::KEYS, Some(&issuer));
            let tokens = toml::Table::try_from(TokensTable::default()).unwrap_or_default();
            section(&mut page, Some("identity.tokens"), TokensTable::DOC, TokensTable::KEYS, Some(&tokens));
        }
        if name == "encryption" {
            let vault = toml::Table::try_from(VaultTable::default()).unwrap_or_default();
            section(&mut page, Some("encryption.vault"), VaultTable::DOC, VaultTable::KEYS, Some(&vault));
        }
        if name == "workers" {
            let group = toml::Table::try_from(SlotGroupTable::default()).unwrap_or_default();
            section(&mut page, Some("[workers.group]"), SlotGroupTable::DOC, SlotGroupTable::KEYS, Some(&group));
        }
    }
    page
}

fn section(page: &mut String, name: Option<&str>, doc: &str, keys: &[Key], defaults: Option<&toml::Table>) {
    let title = name.map_or_else(|| "Top level".to_owned(), |name| format!("`[{name}]`"));
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## {title}\n\n{}\n\n| key | default | meaning |\n|---|---|---|\n", doc.trim());
    for key in keys {
        let default = match defaults.and_then(|defaults| defaults.get(key.name)) {
            // A table has its own section.
            Some(toml::Value::Table(_)) => "a table".to_owned(),
            Some(value) => format!("`{value}`"),
            None => "absent".to_owned(),
        };
        let _ = writeln!(page, "| `{}` | {default} | {} |", key.name, key.doc.trim());
    }
}
