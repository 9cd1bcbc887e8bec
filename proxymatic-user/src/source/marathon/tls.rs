//! Whose certificates are believed, and by whose code: rustls with ring.
//!
//! Without `--marathon-ca-cert` the certificates of this system count, else only those in that file: who names an
//! authority means that one.

use reqwest::{Certificate, ClientBuilder};
use rustls::{
    RootCertStore, crypto,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// The certificates of a PEM file.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, String> {
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
pub(super) fn set_up(builder: ClientBuilder, ca: Option<&[Certificate]>, needed: bool) -> ClientBuilder {
    // Fails where there is one already, which is as good.
    let _ = crypto::ring::default_provider().install_default();
    match ca {
        Some(ca) => builder.tls_certs_only(ca.iter().cloned()),
        None if needed => builder,
        None => builder.tls_certs_only([]),
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
