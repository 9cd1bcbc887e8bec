//! `PortSet`, in the kernel's notation, and warnings about service ports that the kernel may assign. Pure.

use std::{collections::BTreeSet, fmt};

/// The port range from which the kernel assigns ports to sockets that request none.
pub(super) const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The ports that the kernel does not assign.
pub(super) const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A set of ports. Displayed in the notation of sysctl(8): `80,1000-1002`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(BTreeSet<u16>);

impl PortSet {
    /// Parses a set. Ignores what is not a port.
    pub fn parse(text: &str) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        };
        Self(text.split([',', '\n']).filter_map(range).flatten().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ports of both sets.
    pub(super) fn union(&self, other: &Self) -> Self {
        Self(&self.0 | &other.0)
    }

    /// The ports that are not in the other set.
    pub(super) fn difference(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// The ports that are in both sets.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }

    /// The ports, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().copied()
    }

    /// The ports within a range in the notation of `ip_local_port_range`.
    pub(super) fn in_range(&self, range: &str) -> Self {
        let mut ends = range.split_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return Self::default() };
        Self(self.0.iter().copied().filter(|port| (first..=last).contains(port)).collect())
    }
}

/// The number of ports that a warning names.
const NAMED: usize = 8;

/// The first [`NAMED`] ports of a set and the number of the others, for a warning of one line.
struct Summary<'a>(&'a PortSet);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: PortSet = self.0.0.iter().copied().take(NAMED).collect();
        match self.0.0.len() - named.0.len() {
            0 => write!(f, "{named}"),
            others => write!(f, "{named} and {others} more"),
        }
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<T: IntoIterator<Item = u16>>(ports: T) -> Self {
        Self(ports.into_iter().collect())
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ports = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = ports.next() {
            let mut last = first;
            while let Some(next) = ports.next_if(|next| last.checked_add(1) == Some(*next)) {
                last = next;
            }
            if first == last {
                write!(f, "{comma}{first}")?
            } else {
                write!(f, "{comma}{first}-{last}")?
            }
            comma = ",";
        }
        Ok(())
    }
}

/// Warns of service ports that the kernel may assign to any socket.
pub(super) fn unreserved_warning(range: &str, reserved: &str, services: &PortSet) -> Option<String> {
    let at_risk = services.in_range(range).difference(&PortSet::parse(reserved));
    (!at_risk.is_empty()).then(|| {
        let range = range.split_whitespace().collect::<Vec<_>>().join(" to ");
        format!(
            "service ports {} are among those that the kernel gives to any socket ({range}): a socket that gets such a \
             port listens on it and is found instead of the service; start the agent with --reserve-ports, or add the ports to \
             net.ipv4.ip_local_reserved_ports",
            Summary(&at_risk)
        )
    })
}

/// Warns of service ports that are SNAT ports as well.
pub(super) fn snat_port_warning(snat: &PortSet, services: &PortSet) -> Option<String> {
    let both = services.difference(&services.difference(snat));
    (!both.is_empty()).then(|| {
        format!(
            "service ports {} are among --snat-ports ({snat}): replies of a backend to such a port may be taken for a \
             client of the service; start the agent with other --snat-ports",
            Summary(&both)
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn service_port_that_is_a_snat_port_is_warned_of() {
        let snat: PortSet = (61_000..=64_999).collect();
        assert_eq!(snat_port_warning(&snat, &PortSet::parse("80,60999,65000")), None);
        let said = snat_port_warning(&snat, &PortSet::parse("80,61000,64999")).unwrap();
        assert!(said.starts_with("service ports 61000,64999 are among --snat-ports (61000-64999): "), "{said}");
        assert_eq!(snat_port_warning(&PortSet::default(), &snat), None);
    }

    #[test]
    fn many_ports_are_summed_up_in_a_warning() {
        let services: PortSet = (32_768..=60_999).step_by(4).collect();
        let said = unreserved_warning("32768\t60999", "", &services).unwrap();
        let ports = "32768,32772,32776,32780,32784,32788,32792,32796 and 7050 more";
        assert!(said.starts_with(&format!("service ports {ports} are among")), "{said}");
    }

    #[test]
    fn port_set_is_written_in_the_notation_of_the_kernel() {
        assert_eq!(PortSet::from_iter([1002, 80, 1001, 1000, 65535]).to_string(), "80,1000-1002,65535");
        assert_eq!(PortSet::parse("80,1000-1002,65535\n"), PortSet::from_iter([80, 1000, 1001, 1002, 65535]));
        assert_eq!(PortSet::parse("\n"), PortSet::default());
    }

    #[test]
    fn unreserved_service_ports_in_the_range_are_named() {
        let services = PortSet::from_iter([80, 32768, 40000, 40001, 60999, 61000]);
        let said = unreserved_warning("32768\t60999\n", "40000\n", &services).unwrap();
        assert!(said.starts_with("service ports 32768,40001,60999 are among"), "{said}");
        assert!(said.contains("(32768 to 60999)"), "{said}");
        assert_eq!(unreserved_warning("32768\t60999\n", "32768-60999\n", &services), None);
        assert_eq!(unreserved_warning("", "", &services), None, "there is no IPv4");
    }

    proptest! {
        #[test]
        fn displayed_port_set_can_be_parsed(ports in prop::collection::btree_set(any::<u16>(), 0..200)) {
            let set = PortSet(ports);
            prop_assert_eq!(PortSet::parse(&set.to_string()), set);
        }

        #[test]
        fn any_text_can_be_parsed(text in ".{0,40}") {
            let _ = (PortSet::parse(&text), PortSet::default().in_range(&text));
        }
    }
}
