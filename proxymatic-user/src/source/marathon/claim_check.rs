//! Checks the claims of apps against the operator's rules. Pure.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    api::{Listing, good},
    claim_rules::ClaimRules,
    lookups::{Lookups, parse_address},
};
use crate::model::Vip;

/// Returns the names among the protected hosts, which must be looked up.
pub(super) fn protected_names(rules: &ClaimRules) -> impl Iterator<Item = &String> {
    // Without networks no address is served, so none needs protection.
    let needed = !rules.vip_networks.is_empty();
    rules.protected.keys().filter(move |host| needed && parse_address(host).is_none())
}

/// The rules, with the addresses in one listing that they protect.
pub(super) struct ClaimCheck<'a> {
    rules: &'a ClaimRules,
    lookups: &'a Lookups,
    listing: &'a Listing,
    /// What each protected address is. Made only for an app that claims an address in a permitted network.
    protected: OnceCell<BTreeMap<IpAddr, String>>,
}

impl<'a> ClaimCheck<'a> {
    pub(super) const fn new(rules: &'a ClaimRules, lookups: &'a Lookups, listing: &'a Listing) -> Self {
        Self { rules, lookups, listing, protected: OnceCell::new() }
    }

    /// Begins with the ports of an app or pod.
    pub(super) const fn app(&self) -> AppClaims<'_, 'a> {
        AppClaims { check: self, left: self.rules.max_ports_per_app, exceeded: false }
    }

    fn permit(&self, vip: Vip<'_>) -> Result<(), String> {
        let Vip::Address(address, _) = vip else {
            let names = "names take their port on every host, and --vip-names does not permit them";
            return if self.rules.vip_names { Ok(()) } else { Err(names.into()) };
        };
        if !self.rules.vip_networks.iter().any(|network| network.contains(&address)) {
            return Err("it is in no network of --vip-networks".into());
        }
        if is_link_local(address) {
            return Err("link-local addresses belong to the network itself".into());
        }
        match self.protected.get_or_init(|| self.addresses()).get(&address) {
            Some(what) => Err(format!("it is {what}")),
            None => Ok(()),
        }
    }

    fn addresses(&self) -> BTreeMap<IpAddr, String> {
        let Listing { apps, pods, .. } = self.listing;
        let tasks = good(apps).flat_map(|app| good(&app.tasks).map(|task| task.host.as_str()));
        let instances = good(pods).flat_map(|pod| good(&pod.instances).map(|it| it.agent_hostname.as_str()));
        let hosts: BTreeSet<&str> = tasks.chain(instances).collect();
        let mut addresses: BTreeMap<_, _> = hosts
            .into_iter()
            .filter_map(|host| Some((self.lookups.host(host).ok()?, format!("the address of the host {host:?}"))))
            .collect();
        let servers = self.lookups.name_servers.iter();
        addresses.extend(servers.map(|address| (*address, "the address of a name server".to_owned())));
        let protected = self.rules.protected.iter();
        addresses.extend(protected.filter_map(|(host, what)| Some((self.lookups.host(host).ok()?, what.clone()))));
        addresses.into_iter().map(|(address, what)| (address.to_canonical(), what)).collect()
    }
}

/// The virtual addresses that the labels of one port name.
pub(super) struct PortVips<'v> {
    /// Those that the port may claim.
    pub(super) vips: Vec<Vip<'v>>,
    /// Whether the labels name any, permitted or not.
    pub(super) named: bool,
    /// Whether the port may claim anything at all.
    pub(super) fits: bool,
}

/// The claims of one app or pod, of which only a number is served.
pub(super) struct AppClaims<'c, 'a> {
    check: &'c ClaimCheck<'a>,
    left: usize,
    exceeded: bool,
}

impl AppClaims<'_, '_> {
    /// Returns the virtual addresses of the next port, and one sentence for each that is left out.
    pub(super) fn next_port<'v>(
        &mut self,
        labels: impl IntoIterator<Item = (&'v str, &'v str)>,
    ) -> (PortVips<'v>, Vec<String>) {
        let (mut vips, mut wrong) = Vip::read(labels);
        let (named, fits) = (!vips.is_empty(), self.left > 0);
        vips.retain(|vip| match self.check.permit(*vip) {
            Ok(()) => true,
            Err(reason) => {
                wrong.push(format!("the virtual address {vip} is not served: {reason}"));
                false
            }
        });
        self.left = self.left.saturating_sub(1);
        self.exceeded |= !fits || vips.len() > self.left;
        vips.truncate(self.left);
        self.left -= vips.len();
        (PortVips { vips, named, fits }, wrong)
    }

    /// Returns the sentence for an app that has more ports and virtual addresses than are served.
    pub(super) fn finish(self) -> Option<String> {
        let most = self.check.rules.max_ports_per_app;
        self.exceeded.then(|| {
            format!(
                "it has more than {most} ports and virtual addresses: only the first {most} are served; \
                 --max-ports-per-app permits more"
            )
        })
    }
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
