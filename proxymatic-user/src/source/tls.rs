//! TLS with rustls and ring: the trusted certificate authorities.
//!
//! Without a file of certificates the authorities of the system are trusted. With a file only those in the file are.

use std::{error::Error, io};

use reqwest::{Certificate, ClientBuilder};
use rustls::{
    RootCertStore, crypto,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Returns the certificates of a PEM file.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let (mut all, mut store) = (Vec::new(), RootCertStore::empty());
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error}"))?;
        all.push(Certificate::from_der(&certificate).map_err(|error| format!("has an invalid certificate: {error}"))?);
        store.add(certificate).map_err(|error| format!("has a certificate that cannot be used: {error}"))?;
    }
    if all.is_empty() {
        return Err("has no certificate; it must have at least one, in PEM".into());
    }
    Ok(all)
}

/// Configures TLS. If no URL needs TLS, no certificates are read: a container may have none.
pub(crate) fn set_up(builder: ClientBuilder, ca: Option<&[Certificate]>, needed: bool) -> ClientBuilder {
    // Fails if a provider is installed already, which is as good.
    let _ = crypto::ring::default_provider().install_default();
    match ca {
        Some(ca) => builder.tls_certs_only(ca.iter().cloned()),
        None if needed => builder,
        None => builder.tls_certs_only([]),
    }
}

/// Returns the TLS error of a request, if it has one, and a possible remedy: the rest of a sentence.
///
/// `authorities` and `address` are the flags that name the authorities and the server.
pub(crate) fn distrust(error: &(dyn Error + 'static), authorities: &str, address: &str) -> Option<String> {
    use rustls::{CertificateError as Certificate, Error as Tls, InvalidMessage};
    let error = tls_error(error)?;
    let remedy = match error {
        Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            format!("; name the authority that signed it with {authorities}")
        }
        Tls::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            format!("; write the name that its certificate has in {address}")
        }
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => "; does it speak TLS on that port?".into(),
        _ => String::new(),
    };
    Some(format!("cannot be trusted over TLS: {error}{remedy}"))
}

/// Returns the TLS error in a chain of errors. An I/O error can hold one that is not in the chain itself.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(within) => tls_error(within),
        None => tls_error(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_a_valid_certificate_is_refused() {
        assert!(certificates(b"").unwrap_err().contains("has no certificate"));
        assert!(certificates(b"-----BEGIN CERTIFICATE-----\nAAAA").unwrap_err().contains("is not PEM"));
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(certificates(junk).unwrap_err().contains("cannot be used"));
    }

    #[test]
    fn valid_certificates_are_read() {
        let one = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem();
        assert_eq!(certificates(format!("{one}\n# comment\n{one}").as_bytes()).unwrap().len(), 2);
    }
}
