use std::time::Duration;

use super::*;

#[test]
fn an_empty_file_is_the_default_configuration_and_the_default_is_valid() {
    assert_eq!(Config::parse("").unwrap(), Config::default());
    let settings = Config::default().settings().unwrap();
    assert!(settings.workers.slots >= 1);
    assert_eq!(settings.limits, Limits::defaults());
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let error =
        Config::parse("data_dir = \"d\"\n[http]\nlisten = \"127.0.0.1:1\"\nlitsen = 3\n").unwrap_err().to_string();
    assert!(error.contains("line 4"), "{error}");
    assert!(error.contains("unknown field `litsen`") && error.contains("`listen`"), "{error}");
    assert!(Config::parse("[htttp]\n").unwrap_err().to_string().contains("`htttp`"));
}

#[test]
fn units_are_read_and_a_bare_number_is_refused() {
    let config = Config::parse("[http]\nmax_body = \"8MiB\"\nheader_timeout = \"1m 30s\"\n").unwrap();
    assert_eq!(config.http.max_body, ByteSize::mib(8));
    assert_eq!(config.http.header_timeout, Span(Duration::from_secs(90)));
    let error = Config::parse("[http]\nmax_body = 8\n").unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("such as \"64MiB\""), "{error}");
    let error = Config::parse("[http]\nmax_body = \"8 parsecs\"\n").unwrap_err().to_string();
    assert!(error.contains("`8 parsecs` is not a size"), "{error}");
    let error = Config::parse("[http]\nheader_timeout = \"soon\"\n").unwrap_err().to_string();
    assert!(error.contains("`soon` is not a duration"), "{error}");
}

#[test]
fn sizes_print_in_the_largest_exact_unit_and_parse_back() {
    for (bytes, text) in [(0, "0B"), (1, "1B"), (1023, "1023B"), (1024, "1KiB"), (3 << 20, "3MiB"), (2 << 30, "2GiB")] {
        assert_eq!(ByteSize(bytes).to_string(), text);
        assert_eq!(text.parse(), Ok(ByteSize(bytes)));
    }
    assert_eq!("512".parse(), Ok(ByteSize(512)));
    for bad in ["", "MiB", "-1MiB", "1.5MiB", "99999999TiB", "1MB"] {
        assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
    }
}

#[test]
fn contradictions_are_refused_and_name_the_key() {
    let refused = |text: &str| Config::parse(text).unwrap().settings().unwrap_err();
    assert_eq!(refused("[workers]\nslots = 0").key, "workers.slots");
    assert_eq!(refused("[workers]\ncpus = [0]\nslot_cores = 2").key, "workers.slot_cores");
    assert_eq!(refused("[workers]\nslots = 1\n[[workers.group]]\nname = \"a\"").key, "workers.group");
    assert_eq!(refused("[scheduler]\nquantum = \"0s\"").key, "scheduler.quantum");
    assert_eq!(refused("[http]\nmax_body = \"1KiB\"").key, "http.max_body");
    assert_eq!(refused("[limits]\nmax_bodies = \"1MiB\"").key, "limits.max_bodies");
    assert_eq!(refused("[workers]\nmax_arena = \"64MiB\"").key, "workers.max_arena");
    assert_eq!(refused("[limits]\ndefault_timeout = \"1h\"").key, "limits.default_timeout");
    assert_eq!(refused("[workers]\nrun_timeout = \"0s\"").key, "workers.run_timeout");
    assert_eq!(refused("[billing]\nprovider = \"\"").key, "billing.provider");
    assert_eq!(refused("[billing]\nregion = \"a\\nb\"").key, "billing.region");
    assert!(refused("[workers]\nslots = 0").to_string().contains("at least 1"));
}

#[test]
fn plain_text_is_served_to_other_machines_only_when_asked_for() {
    let settings = |text: &str| Config::parse(text).unwrap().settings();
    for (key, address) in [("listen", "0.0.0.0:8000"), ("grpc_listen", "[::]:1"), ("metrics_listen", "10.0.0.1:1")] {
        let text = format!("[http]\n{key} = \"{address}\"\n");
        let refused = settings(&text).unwrap_err();
        assert_eq!(refused.key, format!("http.{key}"));
        assert!(refused.problem.contains("`http.plain_text = true`"), "{refused}");
        assert!(settings(&format!("{text}plain_text = true\n")).is_ok());
    }
    assert!(settings("[http]\nlisten = \"[::1]:8000\"\ngrpc_listen = \"127.8.8.8:1\"\n").is_ok());
    let tls = "[http.tls]\ncertificate = \"c\"\nkey = \"k\"\n";
    assert!(settings(&format!("[http]\nlisten = \"0.0.0.0:1\"\ngrpc_listen = \"0.0.0.0:2\"\n{tls}")).is_ok());
    let metrics = format!("[http]\nmetrics_listen = \"0.0.0.0:1\"\n{tls}");
    let refused = settings(&metrics).unwrap_err();
    assert!(refused.key == "http.metrics_listen" && refused.problem.contains("`http.tls.metrics = true`"), "{refused}");
    assert!(settings(&format!("{metrics}metrics = true\n")).is_ok());
}

#[test]
fn a_table_of_tls_is_whole_or_refused() {
    let key = |text: &str| Config::parse(&format!("[http.tls]\n{text}")).unwrap().settings().unwrap_err().key;
    assert_eq!(key("certificate = \"c\""), "http.tls.key");
    assert_eq!(key("key = \"k\""), "http.tls.certificate");
    assert_eq!(key("metrics = true"), "http.tls.certificate");
    let both = "certificate = \"c\"\nkey = \"k\"\n";
    assert_eq!(key(&format!("{both}client_auth = \"required\"")), "http.tls.client_ca");
    assert_eq!(key(&format!("{both}client_ca = \"a\"")), "http.tls.client_auth");
    let text = format!("[http.tls]\n{both}client_ca = \"a\"\nclient_auth = \"optional\"\nmin_version = \"1.3\"\n");
    let tls = Config::parse(&text).unwrap().settings().unwrap().http.tls.unwrap();
    assert_eq!((tls.client_auth, tls.min_version), (ClientAuth::Optional, TlsVersion::Tls13));
    assert!(Config::parse("[http.tls]\nmin_version = \"1.1\"\n").is_err());
}

#[test]
fn the_master_key_is_in_one_place() {
    let settings = |text: &str| Config::parse(&format!("data_dir = \"/d\"\n{text}")).unwrap().settings();
    let of = |text: &str| settings(text).unwrap().encryption;
    let file = |path: &str, is_beside| MasterKeySettings::File { path: path.into(), is_beside };
    assert_eq!(of(""), EncryptionSettings { is_on: true, master_key: file("/d/master-key", true) });
    assert!(!of("[encryption]\nenabled = false").is_on);
    assert_eq!(of("[encryption]\nkey_file = \"/etc/k\"").master_key, file("/etc/k", false));
    let environment = of("[encryption]\nmaster_key = \"environment\"").master_key;
    assert_eq!(environment, MasterKeySettings::Environment("TENANTRY_MASTER_KEY".to_owned()));
    let key = |text: &str| settings(&format!("[encryption]\n{text}")).unwrap_err().key;
    assert_eq!(key("key_file = \"\""), "encryption.key_file");
    assert_eq!(key("master_key = \"environment\"\nkey_file = \"/k\""), "encryption.key_file");
    assert_eq!(key("master_key = \"vault\""), "encryption.vault.address");
    let vault = "master_key = \"vault\"\n[encryption.vault]\n";
    assert_eq!(key(&format!("{vault}address = \"http://vault:8200\"")), "encryption.vault.address");
    assert_eq!(key(&format!("{vault}address = \"https://vault:8200\"")), "encryption.vault.token_file");
    let whole = format!("{vault}address = \"http://127.0.0.1:8200\"\ntoken_file = \"/t\"\n");
    assert_eq!(key(&format!("{whole}key = \"a/../b\"")), "encryption.vault.key");
    let MasterKeySettings::Vault { config, .. } = of(&format!("[encryption]\n{whole}")).master_key else { panic!() };
    assert_eq!((config.mount.as_str(), config.key.as_str()), ("transit", "tenantry"));
    assert_eq!(key("[encryption.vault]\naddress = \"https://vault:8200\""), "encryption.vault.address");
    assert!(Config::parse("[encryption]\nmaster_key = \"kms\"").is_err());
}

#[test]
fn slots_follow_the_named_processors() {
    let settings = Config::parse("[workers]\ncpus = [0, 2, 3]").unwrap().settings().unwrap();
    assert_eq!(settings.workers.slots, 3);
    assert_eq!(settings.workers.slot_cores, [[3], [2], [0]], "each slot on a processor of its own");
    let settings = Config::parse("[workers]\ncpus = [0, 2, 3]\nslots = 1").unwrap().settings().unwrap();
    assert_eq!(settings.workers.slots, 1);
    let text = "[workers]\ncpus = [0, 2, 3, 4]\nslot_cores = 2\n[[workers.group]]\nname = \"gold\"\nslots = 1\n";
    let settings = Config::parse(text).unwrap().settings().unwrap();
    assert_eq!((settings.workers.slots, settings.workers.slot_cores), (2, vec![vec![3, 4], vec![0, 2]]));
    assert_eq!(settings.limits.slot_groups, ["gold"]);
}

#[test]
fn the_policy_is_one_of_four() {
    let policy = |text: &str| Config::parse(text).map(|config| config.scheduler.policy);
    assert_eq!(policy(""), Ok(Policy::Fair));
    assert_eq!(policy("[scheduler]\npolicy = \"round-robin\""), Ok(Policy::RoundRobin));
    let error = policy("[scheduler]\npolicy = \"lottery\"").unwrap_err().to_string();
    assert!(error.contains("`strict-priority`"), "{error}");
}

#[test]
fn a_written_configuration_reads_back_the_same() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(Config::parse(&text).unwrap(), Config::default());
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, reference()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == reference(), "docs/configuration.md is stale: run this test with UPDATE_REFERENCE=1");
}

#[test]
fn every_key_of_every_table_has_documentation_in_the_reference() {
    fn keys(table: &toml::Table, into: &mut Vec<String>) {
        for (key, value) in table {
            match value.as_table() {
                Some(inner) => keys(inner, into),
                None => into.push(key.clone()),
            }
        }
    }
    let page = reference();
    let mut all = Vec::new();
    keys(&toml::Table::try_from(Config::default()).unwrap(), &mut all);
    assert!(all.len() > 20);
    for key in all {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
}
