//! The entries of an allow list.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// One entry of an allow list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllowRule {
    /// Clients in a network. The bits of its address after the prefix are zero.
    Network(IpNet),
    /// Programs in a cgroup or below it. The value is the path from the root of the host's cgroup2 tree, as in the last
    /// field of `/proc/<pid>/cgroup`.
    Cgroup(String),
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Cgroup(path) => write!(f, "cgroup:{path}"),
        }
    }
}

impl FromStr for AllowRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MUST: &str = "must be an address, a network such as 10.0.0.0/8, or cgroup:/path";
        if let Some(path) = text.strip_prefix("cgroup:") {
            // `..` could leave the cgroup tree and name a folder whose inode number is the id of another cgroup.
            let stays_below = path.split('/').all(|part| !matches!(part, "." | ".."));
            let path = path.trim_end_matches('/');
            return match path.starts_with('/') && stays_below && !path.contains('\0') {
                true => Ok(Self::Cgroup(path.to_owned())),
                false => Err(MUST),
            };
        }
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| MUST)?;
        let network = match prefix {
            Some(prefix) => prefix.parse().ok().and_then(|prefix| IpNet::new(address, prefix).ok()).ok_or(MUST)?,
            None => address.into(),
        };
        let mapped = network.prefix_len().checked_sub(96).filter(|_| address.is_ipv6());
        Ok(Self::Network(match (address.to_canonical(), mapped) {
            (four @ IpAddr::V4(_), Some(prefix)) => IpNet::new_assert(four, prefix).trunc(),
            _ => network.trunc(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_rule_masks_networks_and_rejects_dot_dot() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("::ffff:10.1.0.0/104", "10.0.0.0/8"),
            ("cgroup:/mesos/a..b", "cgroup:/mesos/a..b"),
            ("cgroup:/system.slice/", "cgroup:/system.slice"),
        ] {
            assert_eq!(text.parse::<AllowRule>().map(|it| it.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for text in
            ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "/8", "cgroup:", "cgroup:a", "cgroup:/a/../b", "db"]
        {
            assert!(text.parse::<AllowRule>().is_err(), "{text}");
        }
    }
}
