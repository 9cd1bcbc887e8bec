//! Whose certificates are believed, and by whose code: rustls with ring.
//!
//! Without a file of certificates those of this system count, else only those in that file: who names an authority
//! means that one.

use std::{error::Error, io};

use reqwest::{Certificate, ClientBuilder};
use rustls::{
    RootCertStore, crypto,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// The certificates of a PEM file.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    let (mut all, mut store) = (Vec::new(), RootCertStore::empty());
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error}"))?;
        all.push(Certificate::from_der(&certificate).map_err(|error| format!("has no good certificate: {error}"))?);
        store.add(certificate).map_err(|error| format!("has a certificate that cannot be used: {error}"))?;
    }
    if all.is_empty() {
        return Err("has no certificate; it must have at least one, in PEM".into());
    }
    Ok(all)
}

/// Sets up TLS. Where there is none to come, no certificates are read: a container may have none.
pub(crate) fn set_up(builder: ClientBuilder, ca: Option<&[Certificate]>, needed: bool) -> ClientBuilder {
    // Fails where there is one already, which is as good.
    let _ = crypto::ring::default_provider().install_default();
    match ca {
        Some(ca) => builder.tls_certs_only(ca.iter().cloned()),
        None if needed => builder,
        None => builder.tls_certs_only([]),
    }
}

/// What is wrong with the TLS of a request, if that is what went wrong, and what may help: the rest of a sentence.
///
/// `authorities` and `address` are the flags that name certificates and the server.
pub(crate) fn distrust(error: &(dyn Error + 'static), authorities: &str, address: &str) -> Option<String> {
    use rustls::{CertificateError as Certificate, Error as Tls, InvalidMessage};
    let error = of_tls(error)?;
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

/// The error of TLS, wherever it is in the chain: within an I/O error it is not on it.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(within) => of_tls(within),
        None => of_tls(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_good_certificate_is_no_good() {
        assert!(certificates(b"").unwrap_err().contains("has no certificate"));
        assert!(certificates(b"-----BEGIN CERTIFICATE-----\nAAAA").unwrap_err().contains("is not PEM"));
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(certificates(junk).unwrap_err().contains("cannot be used"));
    }

    #[test]
    fn good_certificates_are_taken() {
        let one = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem();
        assert_eq!(certificates(format!("{one}\n# comment\n{one}").as_bytes()).unwrap().len(), 2);
    }
}
