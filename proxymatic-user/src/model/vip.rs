//! Virtual addresses in the notation of DC/OS: labels `VIP_<n>` of a port, with `ip:port` or `/name:port`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The value of one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vip<'a> {
    /// An address, and a port from 1 to 65,535.
    Address(IpAddr, u16),
    /// A name that begins with a slash, and a port from 1 to 65,535.
    Name(&'a str, u16),
}

impl fmt::Display for Vip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, port) => SocketAddr::new(*address, *port).fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl<'a> Vip<'a> {
    /// Parses the labels of a port. Returns the virtual addresses, and one sentence for each invalid label.
    pub fn read(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Vec<Self>, Vec<String>) {
        let (mut vips, mut warnings) = (Vec::new(), Vec::new());
        for (label, value) in labels {
            // DC/OS ignores the case.
            if label.get(..4).is_none_or(|start| !start.eq_ignore_ascii_case("VIP_")) {
                continue;
            }
            match Self::parse(value.trim()) {
                Ok(vip) => vips.push(vip),
                Err(reason) => warnings.push(format!("label {label}={value}: {reason}; it is left out")),
            }
        }
        (vips, warnings)
    }

    fn parse(value: &'a str) -> Result<Self, String> {
        let (host, port) = value.rsplit_once(':').ok_or("must be ip:port or /name:port")?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0);
        let port = port.ok_or("the port must be a number from 1 to 65535")?;
        if let Some(name) = host.strip_prefix('/') {
            let good = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_' | '/');
            return match !name.is_empty() && name.chars().all(good) {
                true => Ok(Self::Name(host, port)),
                false => Err("the name must consist of letters, digits, - . _ and /".into()),
            };
        }
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let address: IpAddr = bare.parse().map_err(|_| "must be ip:port or /name:port")?;
        let address = address.to_canonical();
        let broadcast = address == IpAddr::from([255, 255, 255, 255]);
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast {
            return Err(format!("{address} cannot be a virtual address"));
        }
        Ok(Self::Address(address, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vip_label_is_an_address_or_a_name() {
        let labels = [
            ("VIP_0", "/shop/web:80"),
            ("VIP_1", "192.0.2.1:443"),
            ("vip_2", "[fd01::7]:80"),
            ("VIP_3", "::ffff:192.0.2.9:81"),
            ("VIP_", " /x:65535 "),
            ("VIPER", "no VIP of ours"),
            ("VI", ""),
            ("\u{e9}\u{e9}\u{e9}", "x"),
        ];
        let (vips, warnings) = Vip::read(labels);
        let vips: Vec<_> = vips.iter().map(ToString::to_string).collect();
        assert_eq!(vips, ["/shop/web:80", "192.0.2.1:443", "[fd01::7]:80", "192.0.2.9:81", "/x:65535"]);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn invalid_vip_label_gives_a_warning() {
        for (value, says) in [
            ("", "must be ip:port or /name:port"),
            ("/web", "must be ip:port or /name:port"),
            ("web:80", "must be ip:port or /name:port"),
            ("/web:0", "the port must be a number from 1 to 65535"),
            ("/web:65536", "the port must be a number"),
            ("/:80", "the name must consist"),
            ("/we b:80", "the name must consist"),
            ("0.0.0.0:80", "0.0.0.0 cannot be a virtual address"),
            ("127.0.0.1:80", "127.0.0.1 cannot be"),
            ("224.0.0.1:80", "cannot be"),
            ("255.255.255.255:80", "cannot be"),
            ("[::1]:80", "cannot be"),
        ] {
            let (vips, warnings) = Vip::read([("VIP_0", value), ("VIP_1", "/good:1")]);
            assert_eq!(vips, [Vip::Name("/good", 1)]);
            assert_eq!(warnings.len(), 1, "{value}");
            let start = format!("label VIP_0={value}: ");
            assert!(warnings[0].starts_with(&start) && warnings[0].contains(says), "{}", warnings[0]);
        }
    }
}
