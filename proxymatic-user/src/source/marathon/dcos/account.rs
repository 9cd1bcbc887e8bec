//! A DC/OS service account: its secret, and the signed request that logs in.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Url;
use rustls::{
    SignatureScheme, crypto,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::Signer,
};
use serde::Deserialize;
use serde_json::json;

/// The life of a signed login request, in seconds.
const LOGIN_LIFE: u64 = 300;

/// A service account. Printed without its key.
#[derive(Clone)]
pub(in crate::source::marathon) struct Account {
    pub(super) uid: String,
    signer: Arc<dyn Signer>,
    pub(super) login: Url,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("uid", &self.uid).field("login", &self.login.as_str()).finish_non_exhaustive()
    }
}

impl Account {
    /// Reads the JSON of a service account secret.
    ///
    /// # Errors
    /// It is not one; the text is the rest of a sentence, without any part of the key.
    pub(in crate::source::marathon) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Secret {
            uid: String,
            private_key: String,
            login_endpoint: String,
            #[serde(default)]
            scheme: Option<String>,
        }
        let Secret { uid, private_key, login_endpoint, scheme } = serde_json::from_slice(bytes)
            // The position only: the text there may be the key.
            .map_err(|error| match error.classify() {
                serde_json::error::Category::Data if error.to_string().starts_with("missing field") => {
                    format!("is not a service account: {error}")
                }
                _ => format!("is not the JSON of a service account (line {}, column {})", error.line(), error.column()),
            })?;
        if let Some(scheme) = scheme.filter(|scheme| scheme != "RS256") {
            return Err(format!("has the scheme {scheme:?}; only RS256 is known"));
        }
        let login =
            Url::parse(&login_endpoint).map_err(|error| format!("has a login_endpoint that is not a URL: {error}"));
        let login = login?;
        if !matches!(login.scheme(), "https" | "http") {
            return Err("has a login_endpoint that is neither https:// nor http://".into());
        }
        let key = PrivateKeyDer::from_pem_slice(private_key.as_bytes())
            .map_err(|_| "has a private_key that is not PEM".to_owned())?;
        let key = crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| format!("has a private_key that cannot be used: {error}"))?;
        let signer = key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]);
        let signer = signer.ok_or("has a private_key that is not RSA, which RS256 needs")?;
        Ok(Self { uid, signer: signer.into(), login })
    }

    /// Returns whether a login uses TLS.
    pub(in crate::source::marathon) fn is_tls(&self) -> bool {
        self.login.scheme() == "https"
    }

    /// Returns the body of the request that logs in. `now` is in seconds since 1970.
    pub(super) fn login_request(&self, now: u64) -> Result<serde_json::Value, String> {
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let exp = now + LOGIN_LIFE;
        let signed =
            format!("{}.{}", part(json!({"alg": "RS256", "typ": "JWT"})), part(json!({"exp": exp, "uid": self.uid})));
        let signature = self.signer.sign(signed.as_bytes());
        let signature = signature.map_err(|error| format!("cannot be logged in to: the signature failed ({error})"))?;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        Ok(json!({"uid": self.uid, "token": token, "exp": exp}))
    }
}

/// Returns the expiry of a token in seconds since 1970, if the token has one.
pub(super) fn expiry(token: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    // Saturates: an absurd number is far away.
    Some(exp as u64)
}

#[cfg(test)]
mod tests;
