//! What a client's certificate says of him.

use tenantry_types::Digest;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The most names that are read from a certificate, and the longest, bytes. What is beyond names nobody.
const MAX_NAMES: usize = 16;
const MAX_NAME_BYTES: usize = 2048;

/// A client's certificate, which an authority that we trust has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The common name of its subject.
    pub(crate) common_name: Option<String>,
    /// The URIs among its subject's alternative names, such as `spiffe://example.org/batch`.
    pub(crate) uris: Vec<String>,
    /// What a key that is proved by it may be bound to: its alternative names, the URIs first, then the common name.
    pub(crate) names: Vec<Box<str>>,
    /// SHA-256 of the whole certificate.
    pub(crate) fingerprint: Digest,
}

impl ClientCertificate {
    /// Reads a certificate that was verified. Names that cannot be read name nobody.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Self {
        let fingerprint = Digest::of(der);
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self { common_name: None, uris: Vec::new(), names: Vec::new(), fingerprint };
        };
        let fits = |name: &&str| name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control);
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = || alternative.iter().flat_map(|extension| &extension.value.general_names);
        let uris = names().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let hosts = names().filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(*host),
            _ => None,
        });
        let common_name = common_name.filter(fits).map(str::to_owned);
        let uris: Vec<String> = uris.filter(fits).take(MAX_NAMES).map(str::to_owned).collect();
        let names = uris.iter().map(|uri| format!("URI:{uri}").into());
        let names = names.chain(hosts.filter(fits).take(MAX_NAMES).map(|host| format!("DNS:{host}").into()));
        let names = names.chain(common_name.iter().map(|name| format!("CN:{name}").into())).collect();
        Self { common_name, uris, names, fingerprint }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn made(common_name: &str, uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn names_and_fingerprint_are_read() {
        let der = made("batch", &["spiffe://example.org/batch", "urn:x"]);
        let read = ClientCertificate::read(&der);
        assert_eq!(read.common_name.as_deref(), Some("batch"));
        assert_eq!(read.uris, ["spiffe://example.org/batch", "urn:x"]);
        assert_eq!(read.fingerprint, Digest::of(&der));
        let names = ["URI:spiffe://example.org/batch", "URI:urn:x", "DNS:localhost", "CN:batch"];
        assert_eq!(read.names.iter().map(|name| &**name).collect::<Vec<_>>(), names);
    }

    #[test]
    fn names_that_do_not_fit_name_nobody() {
        let long = format!("urn:{}", "x".repeat(MAX_NAME_BYTES));
        let many: Vec<String> = (0..2 * MAX_NAMES).map(|number| format!("urn:{number}")).collect();
        let mut uris = vec![long.as_str()];
        uris.extend(many.iter().map(String::as_str));
        let read = ClientCertificate::read(&made("line\nbreak", &uris));
        assert_eq!((read.common_name, read.uris.len(), read.uris[0].as_str()), (None, MAX_NAMES, "urn:0"));
        let broken = ClientCertificate::read(&CertificateDer::from(vec![1, 2, 3]));
        assert_eq!((broken.common_name, broken.uris.len()), (None, 0));
    }
}
