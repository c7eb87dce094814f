//! Encryption in transit as meant, and where plain text may be served.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{HttpTable, SettingsError};

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    Off,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Encryption in transit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The file of the server's certificate and those that signed it.
    pub certificate: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
    /// The file of the authorities of clients' certificates; none: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether the metrics are encrypted as well.
    pub metrics: bool,
}

impl TlsSettings {
    /// What the table means; none: no TLS.
    pub(super) fn from_table(http: &HttpTable) -> Result<Option<Self>, SettingsError> {
        let fail = |key, problem: &str| Err(SettingsError { key, problem: problem.to_owned() });
        let table = &http.tls;
        let (certificate, key) = match (&table.certificate, &table.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            (Some(_), None) => return fail("http.tls.key", "must name the certificate's private key"),
            (None, Some(_)) => return fail("http.tls.certificate", "must name the certificate of `http.tls.key`"),
            (None, None) if table.client_ca.is_some() || table.client_auth != ClientAuth::Off || table.metrics => {
                return fail("http.tls.certificate", "must name a certificate, or the rest of the table has no effect");
            }
            (None, None) => return Ok(None),
        };
        match (&table.client_ca, table.client_auth) {
            (None, ClientAuth::Optional | ClientAuth::Required) => {
                return fail("http.tls.client_ca", "must name the authorities that sign clients' certificates");
            }
            (Some(_), ClientAuth::Off) => {
                return fail(
                    "http.tls.client_auth",
                    "must be \"optional\" or \"required\" where `http.tls.client_ca` is set",
                );
            }
            _ => {}
        }
        Ok(Some(Self {
            certificate,
            key,
            client_ca: table.client_ca.clone(),
            client_auth: table.client_auth,
            min_version: table.min_version,
            metrics: table.metrics,
        }))
    }
}

/// Refuses to serve in plain text where others than this machine's programs can read it, unless that is asked for.
pub(super) fn check_plain_text(http: &HttpTable) -> Result<(), SettingsError> {
    let is_tls = http.tls.certificate.is_some();
    let doors = [
        ("http.listen", http.listen, is_tls),
        ("http.grpc_listen", http.grpc_listen, is_tls),
        ("http.metrics_listen", http.metrics_listen, is_tls && http.tls.metrics),
    ];
    let readable = doors.into_iter().find(|(_, address, is_encrypted)| !is_encrypted && is_reached(*address));
    match readable {
        Some((key, address, _)) if !http.plain_text => Err(SettingsError {
            key,
            problem: format!(
                "is {address}, which other machines reach, and would be served in plain text: name a certificate in \
                 `[http.tls]`{}, listen on 127.0.0.1, or say `http.plain_text = true` (--plain-text) if the network is \
                 trusted or something in front encrypts",
                if is_tls { " and set `http.tls.metrics = true`" } else { "" }
            ),
        }),
        _ => Ok(()),
    }
}

/// Whether other machines may reach an address.
fn is_reached(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}
