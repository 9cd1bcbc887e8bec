//! The host of a backend: an address or a name.

use std::net::IpAddr;

use serde::Deserialize;

/// The host of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let good = |label: &str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(letter)
        };
        let name = text.strip_suffix('.').unwrap_or(&text);
        let last = name.rsplit('.').next().unwrap_or_default();
        // A name that ends in a number is most likely a mistyped address.
        if name.len() <= 253 && name.split('.').all(good) && !last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(text.to_ascii_lowercase()));
        }
        Err(format!("{text:?} is neither an IP address nor the name of a host"))
    }
}
