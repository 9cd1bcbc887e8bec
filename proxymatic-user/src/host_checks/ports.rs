//! Sets of ports as the kernel writes them, and service ports that it may give away. Pure.

use std::{collections::BTreeSet, fmt};

/// The ports that the kernel gives to sockets that ask for none.
pub(super) const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Those among them that it does not.
pub(super) const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A set of ports. Printed as sysctl(8) takes it: `80,1000-1002`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(BTreeSet<u16>);

impl PortSet {
    /// Reads a set as it is printed. What is no port is left out.
    pub fn read(text: &str) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        };
        Self(text.split([',', '\n']).filter_map(range).flatten().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(&self.0 | &other.0)
    }

    /// Those that the other has not.
    pub(super) fn without(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// Those between two ports, as `ip_local_port_range` has them.
    pub(super) fn within(&self, range: &str) -> Self {
        let mut ends = range.split_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return Self::default() };
        Self(self.0.iter().copied().filter(|port| (first..=last).contains(port)).collect())
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

/// Service ports that a socket may be given that asked for none.
pub(super) fn unreserved(range: &str, reserved: &str, services: &PortSet) -> Option<String> {
    let at_risk = services.within(range).without(&PortSet::read(reserved));
    (!at_risk.is_empty()).then(|| {
        let range = range.split_whitespace().collect::<Vec<_>>().join(" to ");
        format!(
            "service ports {at_risk} are among those that the kernel gives to any socket ({range}): one that gets such a \
             port listens on it, and is found instead of the service; start the agent with --reserve-ports, or add them to \
             net.ipv4.ip_local_reserved_ports"
        )
    })
}

/// Service ports among those that backends on other machines are talked to from.
pub(super) fn borrowed(snat: &PortSet, services: &PortSet) -> Option<String> {
    let both = services.without(&services.without(snat));
    (!both.is_empty()).then(|| {
        format!(
            "service ports {both} are among --snat-ports ({snat}): what a backend answers there may be taken for a client of \
             the service; start the agent with other --snat-ports"
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_service_port_among_those_of_remote_connections_is_said() {
        let snat: PortSet = (61_000..=64_999).collect();
        assert_eq!(borrowed(&snat, &PortSet::read("80,60999,65000")), None);
        let said = borrowed(&snat, &PortSet::read("80,61000,64999")).unwrap();
        assert!(said.starts_with("service ports 61000,64999 are among --snat-ports (61000-64999): "), "{said}");
        assert_eq!(borrowed(&PortSet::default(), &snat), None);
    }

    #[test]
    fn sets_are_written_as_the_kernel_writes_them() {
        assert_eq!(PortSet::from_iter([1002, 80, 1001, 1000, 65535]).to_string(), "80,1000-1002,65535");
        assert_eq!(PortSet::read("80,1000-1002,65535\n"), PortSet::from_iter([80, 1000, 1001, 1002, 65535]));
        assert_eq!(PortSet::read("\n"), PortSet::default());
    }

    #[test]
    fn service_ports_within_the_range_and_not_reserved_are_named() {
        let services = PortSet::from_iter([80, 32768, 40000, 40001, 60999, 61000]);
        let said = unreserved("32768\t60999\n", "40000\n", &services).unwrap();
        assert!(said.starts_with("service ports 32768,40001,60999 are among"), "{said}");
        assert!(said.contains("(32768 to 60999)"), "{said}");
        assert_eq!(unreserved("32768\t60999\n", "32768-60999\n", &services), None);
        assert_eq!(unreserved("", "", &services), None, "there is no IPv4");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(ports in prop::collection::btree_set(any::<u16>(), 0..200)) {
            let set = PortSet(ports);
            prop_assert_eq!(PortSet::read(&set.to_string()), set);
        }

        #[test]
        fn any_text_can_be_read(text in ".{0,40}") {
            let _ = (PortSet::read(&text), PortSet::default().within(&text));
        }
    }
}
