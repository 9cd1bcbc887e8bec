//! The addresses of this host, and the warnings about it. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use proxymatic_common::Class;

use super::{
    change_log,
    effect::{Effect, Trigger},
};
use crate::{model::Warning, plan::MapState};

/// What the agent knows of this host.
#[derive(Debug)]
pub(super) struct Host {
    /// The addresses in the maps, until the first event with addresses.
    addresses: BTreeSet<IpAddr>,
    addresses_known: bool,
    warnings: Vec<Warning>,
    interfaces: Vec<Warning>,
}

impl Host {
    /// Starts with the addresses in the maps.
    pub(super) fn adopt(map_state: &MapState) -> Self {
        let addresses = map_state.addresses().iter().filter(|(_, class)| **class == Class::HOST);
        Self {
            addresses: addresses.map(|(address, _)| IpAddr::from(*address)).collect(),
            addresses_known: false,
            warnings: Vec::new(),
            interfaces: Vec::new(),
        }
    }

    pub(super) const fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// Returns whether the addresses come from the host, not only from the maps.
    pub(super) const fn addresses_known(&self) -> bool {
        self.addresses_known
    }

    /// Takes all addresses of this host. The first event publishes even if nothing has changed: the takeover from another
    /// map ABI version waits for it.
    pub(super) fn set_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> Vec<Effect> {
        let first = !std::mem::replace(&mut self.addresses_known, true);
        let changed = self.addresses != addresses;
        if changed {
            tracing::info!("addresses of this host: {}", change_log::list(&addresses));
            self.addresses = addresses;
        }
        if first || changed { vec![Effect::Publish(Trigger::Other)] } else { Vec::new() }
    }

    /// Takes all warnings about this host.
    pub(super) fn set_warnings(&mut self, warnings: Vec<Warning>) {
        log_new_warnings(&self.warnings, &warnings);
        self.warnings = warnings;
    }

    /// Takes all warnings about interfaces.
    pub(super) fn set_interface_warnings(&mut self, warnings: Vec<Warning>) {
        log_new_warnings(&self.interfaces, &warnings);
        self.interfaces = warnings;
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.warnings.iter().chain(&self.interfaces)
    }
}

fn log_new_warnings(known: &[Warning], now: &[Warning]) {
    for new in now.iter().filter(|warning| !known.contains(warning)) {
        tracing::warn!("{}: {}", new.app, new.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_published_first_and_after_each_change() {
        let mut host = Host::adopt(&MapState::default());
        let addresses = |last: u8| BTreeSet::from([IpAddr::from([192, 0, 2, last])]);
        let publish = || vec![Effect::Publish(Trigger::Other)];
        assert!(!host.addresses_known());
        assert_eq!(host.set_addresses(BTreeSet::new()), publish(), "the first event");
        assert_eq!(host.set_addresses(addresses(1)), publish());
        assert_eq!(host.set_addresses(addresses(1)), []);
        assert_eq!((host.addresses(), host.addresses_known()), (&addresses(1), true));
    }

    #[test]
    fn warnings_replace_those_of_the_same_kind() {
        let mut host = Host::adopt(&MapState::default());
        let warning = |app: &str| vec![Warning { app: app.into(), reason: "reason".into() }];
        host.set_warnings(warning("a"));
        host.set_interface_warnings(warning("b"));
        host.set_warnings(warning("c"));
        assert_eq!(host.warnings().map(|it| it.app.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    }
}
