//! The endpoints of `--marathon`: pure parsing, and credentials that are never printed.

use std::fmt;

use reqwest::Url;

use crate::source::credentials::{Credentials, percent_decode};

/// The URL of one Marathon. Printed without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL without credentials, without query, and without a slash at its end.
    url: Url,
    pub(super) credentials: Option<Credentials>,
}

impl Endpoint {
    /// Returns the URL of a path below this endpoint. A base path such as `/service/marathon` stays in front.
    pub(super) fn url_of(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        url
    }

    /// Returns whether the endpoint uses TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Returns whether a URL has the same host, on any port.
    pub(super) fn has_host_of(&self, url: &Url) -> bool {
        self.url.host() == url.host()
    }

    /// Returns whether a URL has the same host and port.
    pub(super) fn has_host_and_port_of(&self, url: &Url) -> bool {
        self.url.host() == url.host() && self.url.port_or_known_default() == url.port_or_known_default()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

const EXAMPLE: &str = "write one such as http://marathon.example:8080";

/// Parses the values of `--marathon`: each is a URL, or several with commas between them.
///
/// # Errors
/// One sentence for each invalid URL. None of them shows a password.
pub fn parse<S: AsRef<str>>(values: &[S]) -> Result<Vec<Endpoint>, Vec<String>> {
    let (mut endpoints, mut wrong) = (Vec::new(), Vec::new());
    for text in values.iter().flat_map(|value| value.as_ref().split(',')).map(str::trim).filter(|it| !it.is_empty()) {
        match endpoint(text) {
            Ok(endpoint) if endpoints.contains(&endpoint) => {}
            Ok(endpoint) => endpoints.push(endpoint),
            Err(reason) => wrong.push(format!("{}: {reason}", redacted(text))),
        }
    }
    if endpoints.is_empty() && wrong.is_empty() {
        wrong.push(format!("no URL; {EXAMPLE}"));
    }
    if wrong.is_empty() { Ok(endpoints) } else { Err(wrong) }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    match text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
        Some("http" | "https") => {}
        Some(_) => return Err("must start with http:// or https://".into()),
        None => return Err(format!("must start with http:// or https://; try http://{}", redacted(text))),
    }
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}; {EXAMPLE}"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with the path: no ? and no #".into());
    }
    let credentials = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => {
            Some(Credentials { user: percent_decode(user), password: percent_decode(password.unwrap_or_default()) })
        }
    };
    let plain = url.set_username("").and_then(|()| url.set_password(None));
    plain.map_err(|()| "cannot have credentials".to_owned())?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(Endpoint { url, credentials })
}

/// Returns the text with `***` in place of the part before the `@`.
fn redacted(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{separator}***@{host}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_base_paths_and_trailing_slashes_are_parsed() {
        let endpoints = parse(&["http://a:8080, http://b/service/marathon/", "http://a:8080/"]).unwrap();
        let at: Vec<_> = endpoints.iter().map(|it| it.url_of("/v2/apps").to_string()).collect();
        assert_eq!(at, ["http://a:8080/v2/apps", "http://b/service/marathon/v2/apps"]);
        let shown: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["http://a:8080", "http://b/service/marathon"]);
        let version = endpoints[0].url_of("/v2/apps/x?y/versions/2020-01-01T00:00:00.000Z");
        assert_eq!(version.as_str(), "http://a:8080/v2/apps/x%3Fy/versions/2020-01-01T00:00:00.000Z");
    }

    #[test]
    fn credentials_are_decoded_and_never_printed() {
        let endpoint = parse(&["http://me%40x:p%3Aw%2f%@h:1/"]).unwrap().remove(0);
        let Credentials { user, password } = endpoint.credentials.clone().unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("me@x", "p:w/%"));
        assert_eq!(endpoint.to_string(), "http://h:1");
        assert!(!format!("{endpoint:?}").contains("me@x"), "{endpoint:?}");
        assert!(!format!("{endpoint:?}").contains("p:w"), "{endpoint:?}");
        for wrong in ["https://me:secret@h?x", "ftp://me:secret@h", "me:secret@h", "http://me:secret@h:port"] {
            let error = parse(&[wrong]).unwrap_err().concat();
            assert!(error.contains("***@h") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn all_invalid_urls_are_reported_at_once() {
        let wrong = parse(&["ftp://a,marathon:8080", "http://", "http://h/?x"]).unwrap_err();
        let expected =
            ["must start with http:// or https://", "try http://marathon:8080", "is not a URL", "no ? and no #"];
        assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.contains(expected), "{wrong}");
        }
        assert!(parse(&[" , "]).unwrap_err()[0].contains("no URL"));
        assert!(parse::<&str>(&[]).unwrap_err()[0].contains("no URL"));
    }
}
